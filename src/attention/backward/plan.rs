//! In what dispatches gradients flow back.

use super::super::{AttentionConfig, Scale};
use super::{AttentionBackward, AttentionBackwardShapes, OPERANDS};
use crate::dispatch::{Plan, PlanBuilder};
use crate::op::{self, GivenNames, Kernels, Operand};
use crate::tuning::NoOffer;
use crate::{Error, Result};

pub(super) type Problem = op::Problem<AttentionBackwardShapes>;

impl Kernels for AttentionBackward {
    const NAME: &'static str = "attention_backward";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = AttentionConfig;
    type Shapes = AttentionBackwardShapes;
    type Offer = NoOffer;

    fn check_config(config: &AttentionConfig) -> Result<()> {
        config.check()
    }

    fn check(_: &AttentionConfig, shapes: &AttentionBackwardShapes) -> Result<()> {
        shapes.check()
    }

    fn refuses(config: &AttentionConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let per_row = config.scale == Scale::PerRow;
        let comes_in = ["dout", "dlse", "dentropy"].iter().any(|name| given.input(name));
        let asked = OPERANDS.iter().any(|row| given.output(row.name));
        match (row.name, given.has(row)) {
            ("dout", false) if !comes_in => Some("is missing, and so are dlse and dentropy: no gradient comes in"),
            ("dq", false) if !asked && !given.on_host => {
                Some("is missing, and so are all others: no gradient is asked for")
            }
            ("dentropy", true) if !given.input("entropy") => Some("is given, but entropy is not"),
            ("row_scale", true) if !per_row => Some("is given, but the scale is not per_row"),
            ("row_scale", false) if per_row => Some("the per_row scale needs it"),
            ("dbias", true) if !given.input("bias") => Some("is given, but bias is not"),
            ("drow_scale", true) if !per_row => Some("is given, but the scale is not per_row"),
            ("dscale", true) if per_row => {
                Some("is given, but rows have scales of their own, and drow_scale is theirs")
            }
            _ => None,
        }
    }

    fn build(_: PlanBuilder<'_>, _: &AttentionConfig, _: &Problem, _: Option<&NoOffer>) -> Result<Plan> {
        Err(Error::Unsupported { reasons: vec!["not yet".into()] })
    }
}
