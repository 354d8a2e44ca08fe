//! From tensors, or sizes alone, to a plan.

use std::sync::Arc;

use super::Kernels;
use super::problem::{Problem, Table};
use super::shapes::{GivenNames, Shapes, check_given, refused, sizes};
use crate::context::Context;
use crate::dispatch::{Plan, PlanBuilder, PlanCache, Prepared};
use crate::dtype::{DType, Storage};
use crate::operand::{Access, Operand};
use crate::tensor::{AnyView, Operands, expect};
use crate::{Error, Result};

/// An op on a device, with the plans of the problems it has met.
pub(crate) struct Planner<O: Kernels> {
    pub context: Context,
    pub config: O::Config,
    plans: PlanCache<Problem<O::Shapes>>,
}

impl<O: Kernels> Planner<O> {
    pub fn new(context: &Context, config: O::Config) -> Self {
        Self { context: context.clone(), config, plans: PlanCache::default() }
    }

    /// A plan of contiguous tensors.
    pub fn plan(&self, shapes: &O::Shapes, dtype: DType) -> Result<Arc<Plan>> {
        let problem = problem::<O>(&self.context, &self.config, shapes, dtype)?;
        self.plan_for(problem)
    }

    /// A plan of these tensors, each with its row, in the order of the table, and what it binds.
    pub fn prepare<'a>(&self, views: &[(usize, AnyView<'a>)]) -> Result<Prepared<'a>> {
        let is_missing = |index: usize| !views.iter().any(|(own, _)| *own == index);
        let mut rows = O::OPERANDS.iter().enumerate();
        if let Some((_, row)) = rows.find(|(index, row)| !row.optional && is_missing(*index)) {
            return Err(refused(row, "is missing", false));
        }
        let of_rows = views.chunk_by(|(a, _), (b, _)| a == b);
        let extents = of_rows.map(|own| {
            let row = &O::OPERANDS[own[0].0];
            Ok((row, joined(row, own, O::together(&self.config))?))
        });
        let mut shapes = sizes::<O>(&self.config, &extents.collect::<Result<Vec<_>>>()?, false)?;
        let mut operands = Operands::new(self.context.capabilities());
        let mut tensors = Vec::with_capacity(views.len());
        for &(index, view) in views {
            let row = &O::OPERANDS[index];
            let got = Some(view.dtype()).filter(|&dtype| dtype != DType::F32);
            if let (Some(expected), Some(got)) = (O::must_be_f32(&self.config, row.name), got) {
                return Err(Error::DType { tensor: row.name, expected, got });
            }
            let layout = operands.add(row, view)?;
            if layout.transposed {
                shapes.transpose(row.name);
            }
            tensors.push((index, layout));
        }
        // One kernel reads all of a list.
        for index in (0..O::OPERANDS.len()).filter(|index| O::OPERANDS[*index].list) {
            let own = || tensors.iter().filter(|(row, _)| *row == index);
            if own().any(|(_, layout)| layout.storage == Storage::NativeF16) {
                let own = tensors.iter_mut().filter(|(row, _)| *row == index);
                own.for_each(|(_, layout)| layout.storage = Storage::NativeF16);
            }
        }
        let in_place = operands.in_place();
        let operands = operands.finish()?;
        let plan = self.plan_for(Problem { shapes, table: Table(O::OPERANDS), tensors, in_place })?;
        Ok(Prepared::new(&self.context, plan, operands))
    }

    /// The same of tensors by the names of their rows.
    pub fn prepare_by_name<'a>(&self, tensors: &[(&str, Access, AnyView<'a>)]) -> Result<Prepared<'a>> {
        let is =
            |row: &Operand, (name, access, _): &(&str, Access, AnyView<'a>)| (row.name, row.access) == (*name, *access);
        if let Some((name, access, _)) = tensors.iter().find(|tensor| !O::OPERANDS.iter().any(|row| is(row, tensor))) {
            let kind = if *access == Access::Read { "input" } else { "output" };
            return Err(Error::Operand { tensor: "tensors", problem: format!("{} has no {kind} {name}", O::NAME) });
        }
        let rows = || O::OPERANDS.iter().enumerate();
        let given = |row: &'static Operand| tensors.iter().filter(move |tensor| is(row, tensor));
        if let Some((_, row)) = rows().find(|(_, row)| !row.list && given(row).count() > 1) {
            return Err(refused(row, "is given more than once", false));
        }
        let views = rows().flat_map(|(index, row)| given(row).map(move |(.., view)| (index, *view)));
        self.prepare(&views.collect::<Vec<_>>())
    }

    fn plan_for(&self, problem: Problem<O::Shapes>) -> Result<Arc<Plan>> {
        self.plans.get_or_build(&self.context, problem, |problem| plan::<O>(&self.context, &self.config, problem))
    }
}

/// The extents of tensors that are one along their first axis.
fn joined(row: &Operand, views: &[(usize, AnyView<'_>)], (together, what): (u32, &'static str)) -> Result<Vec<u64>> {
    let first = views[0].1;
    let mut extents: Vec<u64> = first.shape().iter().map(|&extent| extent.into()).collect();
    for (_, view) in &views[1..] {
        let own = view.shape();
        if own.len() != extents.len() {
            let expected = format!("{} axes (as the first of the list)", extents.len());
            return Err(Error::Shape { tensor: row.name, axis: "all", expected, got: own.len() as u64 });
        }
        for (axis, (&got, &expected)) in own.iter().zip(first.shape()).enumerate().skip(1) {
            expect(row.name, row.axis(axis), got, expected, "the first of the list")?;
        }
        if view.dtype() != first.dtype() {
            return Err(Error::DType { tensor: row.name, expected: first.dtype().name(), got: view.dtype() });
        }
        extents[0] += u64::from(own[0]);
    }
    let extent = |view: &AnyView<'_>| view.shape().first().copied().unwrap_or(0);
    let mut parts = views.iter().map(|(_, view)| extent(view));
    if let Some(got) = parts.find(|extent| views.len() > 1 && !extent.is_multiple_of(together)) {
        let expected = format!("a multiple of {together} in each of the list ({what})");
        return Err(Error::Shape { tensor: row.name, axis: row.axis(0), expected, got: got.into() });
    }
    Ok(extents)
}

/// Contiguous tensors of these sizes, if the op and the device take them.
pub(crate) fn problem<O: Kernels>(
    context: &Context,
    config: &O::Config,
    shapes: &O::Shapes,
    dtype: DType,
) -> Result<Problem<O::Shapes>> {
    let has = |row: &&'static Operand| !row.optional || O::has(config, shapes, row);
    check_given::<O>(config, &GivenNames::new(O::OPERANDS.iter().filter(has), false))?;
    O::check(config, shapes)?;
    let device = context.capabilities();
    let problem = Problem::contiguous::<O>(config, *shapes).stored::<O>(config, dtype, device)?;
    // What is broadcast may lie in a smaller buffer.
    for (_, row, layout) in problem.given().filter(|(_, row, _)| !(row.optional && row.broadcast)) {
        layout.check(row.name, &device.limits)?;
    }
    Ok(problem)
}

/// A plan by what the context's tuning takes for this class of calls, if there is one, and else by the tables.
pub(crate) fn plan<O: Kernels>(context: &Context, config: &O::Config, problem: &Problem<O::Shapes>) -> Result<Plan> {
    if problem.shapes.is_empty() {
        return PlanBuilder::new(context, problem).finish(0, 0, "nothing to do".into());
    }
    let build = |offer: Option<&O::Offer>| O::build(PlanBuilder::new(context, problem), config, problem, offer);
    let Some(tuning) = context.tuning() else { return build(None) };
    let offers = || O::offers(config, problem, context.capabilities());
    let (offer, note) = tuning.look_up(&O::class(config, problem), offers);
    match offer.as_ref().map(|offer| build(Some(offer))) {
        None => Ok(build(None)?.because(&note)),
        Some(Err(error)) if !tuning.is_strict() => {
            Ok(build(None)?.because(&format!("what the tuning names was refused: {error}")))
        }
        Some(plan) => Ok(plan?.because(&note)),
    }
}
