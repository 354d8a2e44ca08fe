//! From tensors, or sizes alone, to a plan.

use std::sync::Arc;

use super::Kernels;
use super::problem::{Problem, Table};
use super::shapes::{GivenNames, Shapes, check_given, refused, sizes};
use crate::context::Context;
use crate::dispatch::{Plan, PlanBuilder, PlanCache, Prepared};
use crate::dtype::DType;
use crate::operand::{Access, Operand};
use crate::tensor::{AnyView, Operands};
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

    /// A plan of these tensors, by the rows of the table, and what it binds.
    pub fn prepare<'a>(&self, views: Vec<Option<AnyView<'a>>>) -> Result<Prepared<'a>> {
        let given = O::OPERANDS.iter().zip(&views).filter_map(|(row, view)| Some((row, view.as_ref()?)));
        let extents = given.map(|(row, view)| (row, view.shape().iter().map(|&extent| extent.into()).collect()));
        let mut shapes = sizes::<O>(&self.config, &extents.collect::<Vec<_>>(), false)?;
        let mut operands = Operands::new(self.context.capabilities());
        let mut layouts = Vec::with_capacity(views.len());
        for (row, view) in O::OPERANDS.iter().zip(views) {
            let got = view.as_ref().map(AnyView::dtype).filter(|&dtype| dtype != DType::F32);
            if let (Some(expected), Some(got)) = (O::must_be_f32(&self.config, row.name), got) {
                return Err(Error::DType { tensor: row.name, expected, got });
            }
            let layout = operands.add(row, view)?;
            if layout.is_some_and(|layout| layout.transposed) {
                shapes.transpose(row.name);
            }
            layouts.push(layout);
        }
        let in_place = operands.in_place();
        let operands = operands.finish()?;
        let plan = self.plan_for(Problem { shapes, table: Table(O::OPERANDS), layouts, in_place })?;
        Ok(Prepared::new(&self.context, plan, operands))
    }

    /// The same of tensors by the names of their rows.
    pub fn prepare_by_name<'a>(&self, tensors: &[(&str, Access, AnyView<'a>)]) -> Result<Prepared<'a>> {
        let is = |row: &Operand, (name, access, _): &&(&str, Access, AnyView<'a>)| {
            (row.name, row.access) == (*name, *access)
        };
        if let Some((name, access, _)) = tensors.iter().find(|tensor| !O::OPERANDS.iter().any(|row| is(row, tensor))) {
            let problem = format!("{} has no such operand to {access:?}: {name}", O::NAME);
            return Err(Error::Operand { tensor: "tensors", problem });
        }
        let view = |row| tensors.iter().find(|tensor| is(row, tensor)).map(|(.., view)| *view);
        if let Some(row) = O::OPERANDS.iter().find(|row| !row.optional && view(row).is_none()) {
            return Err(refused(row, "is missing", false));
        }
        self.prepare(O::OPERANDS.iter().map(view).collect())
    }

    fn plan_for(&self, problem: Problem<O::Shapes>) -> Result<Arc<Plan>> {
        self.plans.get_or_build(&self.context, problem, |problem| plan::<O>(&self.context, &self.config, problem))
    }
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
