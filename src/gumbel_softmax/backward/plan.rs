//! In what dispatches the backward pass runs, and its kernels: those of forward, with other sums and other outputs.

use super::super::kernels::{self, Walk};
use super::super::plan::{Call, build, words};
use super::super::{GumbelKind, shapes};
use super::{GumbelSoftmaxBackward, GumbelSoftmaxBackwardShapes, GumbelSoftmaxConfig, OPERANDS};
use crate::dispatch::{Plan, PlanBuilder, View};
use crate::dtype::{DType, Storage};
use crate::op::{GivenNames, Kernels, Operand, Problem, SizeOf};
use crate::tensor::product;
use crate::tuning::NoOffer;
use crate::wgsl::{self, Specialization, fours, optional, source};
use crate::{Error, Result, sums};

impl Kernels for GumbelSoftmaxBackward {
    const NAME: &'static str = "gumbel_softmax_backward";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = GumbelSoftmaxConfig;
    type Shapes = GumbelSoftmaxBackwardShapes;
    type Offer = NoOffer;

    fn check_config(config: &GumbelSoftmaxConfig) -> Result<()> {
        config.check()?;
        if config.kind == GumbelKind::Sample {
            let (option, expected) = ("kind", "one that has a gradient");
            return Err(Error::Config { option, expected, got: "sample".into() });
        }
        Ok(())
    }

    fn check(config: &GumbelSoftmaxConfig, shapes: &GumbelSoftmaxBackwardShapes) -> Result<()> {
        if shapes.rows == 0 && shapes.taus == Some(1) && shapes.dtau {
            let expected = "at least 1, for a dtau of one number to be their sum".into();
            return Err(Error::Shape { tensor: "logits", axis: "rows", expected, got: 0 });
        }
        shapes::check(config, shapes.rows, shapes.columns, shapes.taus)
    }

    fn refuses(_: &GumbelSoftmaxConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        match (row.name, given.has(row)) {
            ("dtau", true) if !given.input("tau") => Some("is given, but tau is not"),
            ("dlogits", false) if !given.on_host && !given.output("dtau") => Some("is missing, and so is dtau"),
            _ => None,
        }
    }

    fn derived(_: &GumbelSoftmaxConfig, _: &SizeOf<'_>, axis: &str) -> Option<(u32, &'static str)> {
        words(axis)
    }

    fn build(
        mut plan: PlanBuilder<'_>,
        config: &GumbelSoftmaxConfig,
        problem: &Problem<GumbelSoftmaxBackwardShapes>,
        _: Option<&NoOffer>,
    ) -> Result<Plan> {
        let shapes = &problem.shapes;
        let (rows, columns) = (shapes.rows, shapes.columns);
        // The gradient of a temperature that all rows share goes through one number a row.
        let shared = shapes.dtau && shapes.taus == Some(1);
        let dtau_rows = match problem.output_view("dtau") {
            Some(_) if shared => plan.workspace("dtau of each row", 4 * u64::from(rows))?.of_numbers(),
            view => view.unwrap_or(View::NOWHERE),
        };
        let views =
            [("dtau_rows", dtau_rows), ("y", View::NOWHERE), ("index", View::NOWHERE), ("noise", View::NOWHERE)];
        let reason = build(
            &mut plan,
            config,
            problem,
            &walk(config, problem),
            &Call { rows, columns, all: shapes.dlogits, views: &views },
        )?;
        if let Some(dtau) = problem.output_view("dtau").filter(|_| shared) {
            sums::dispatch(&mut plan, dtau_rows, (dtau, Storage::Plain(DType::F32)), [rows; 2], 1.0)?;
        }
        plan.finish(product([16, rows, columns]), problem.bytes(), reason)
    }
}

fn walk(config: &GumbelSoftmaxConfig, problem: &Problem<GumbelSoftmaxBackwardShapes>) -> Walk {
    let shapes = &problem.shapes;
    let dy = fours!(problem.is_vec4(&["dy"]), "gumbel_softmax/", "dy");
    let fours = fours!(problem.is_vec4(&["dlogits"]), "gumbel_softmax/", "store_dlogits");
    let mut write = vec![
        source!("gumbel_softmax/backward_write"),
        optional!(shapes.dlogits, "gumbel_softmax/", "dlogits"),
        optional!(shapes.dtau, "gumbel_softmax/", "dtau_rows"),
    ];
    write.extend(shapes.dlogits.then_some(fours));
    Walk {
        lanes: kernels::lanes(shapes.columns),
        prepared: kernels::is_prepared(config, problem),
        sums: source!("gumbel_softmax/backward_sums"),
        terms: vec![source!("gumbel_softmax/backward_terms"), dy],
        rescored: shapes.dlogits,
        write,
    }
}

/// Every specialization that a plan of the backward pass can pick, but for what forward lists.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = vec![sums::kernel(Storage::Plain(DType::F32))];
    let config = GumbelSoftmaxConfig::new();
    for columns in [1, 8, 60, 130, 4096] {
        for flags in 1..8_u32 {
            let on = |bit: u32| flags >> bit & 1 == 1;
            if !on(0) && !on(1) {
                continue;
            }
            let shapes = GumbelSoftmaxBackwardShapes {
                dlogits: on(0),
                dtau: on(1),
                taus: on(1).then_some(2),
                mask: on(2),
                ..GumbelSoftmaxBackwardShapes::new(2, columns)
            };
            let mut problem = Problem::contiguous::<GumbelSoftmaxBackward>(&config, shapes);
            for start in 0..2 {
                ["logits", "dy", "dlogits"].iter().for_each(|name| problem.change(name, |layout| layout.start = start));
                // With and without what a row has of its own.
                for prepared in [shapes.taus.is_some(), true] {
                    let walk = Walk { prepared, ..walk(&config, &problem) };
                    found.extend([walk.rows(&problem), walk.slices(&problem), walk.combine(&problem)]);
                }
            }
        }
    }
    wgsl::distinct(found)
}
