//! In what dispatches gradients flow back.

use super::super::config::GatedAttentionConfig;
use super::super::plan::refuses;
use super::{GatedAttentionBackward, GatedAttentionBackwardShapes, OPERANDS};
use crate::dispatch::{Plan, PlanBuilder};
use crate::op::{self, Access, GivenNames, Kernels, Operand, Shapes};
use crate::tuning::NoOffer;
use crate::{Error, Result};

pub(super) type Problem = op::Problem<GatedAttentionBackwardShapes>;

impl Kernels for GatedAttentionBackward {
    const NAME: &'static str = "gated_attention_backward";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = GatedAttentionConfig;
    type Shapes = GatedAttentionBackwardShapes;
    type Offer = NoOffer;

    fn check_config(config: &GatedAttentionConfig) -> Result<()> {
        config.check()
    }

    fn check(config: &GatedAttentionConfig, shapes: &GatedAttentionBackwardShapes) -> Result<()> {
        shapes.check(config)
    }

    fn refuses(config: &GatedAttentionConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        if row.access == Access::Read {
            let wanted = || OPERANDS.iter().any(|row| is_of_scores(row.name) && given.output(row.name));
            return match row.name {
                "o" if !given.has(row) && config.adds_up() && wanted() => {
                    Some("is missing, but a gradient through weights that add up to one needs it")
                }
                _ => refuses(config, given, row),
            };
        }
        let none = || !OPERANDS.iter().any(|row| given.output(row.name));
        match row.name {
            "dv" if !given.on_host && none() => Some("is missing, and so is every other gradient"),
            name if given.has(row) && !given.input(&name[1..]) => {
                Some("is given, but what it is the gradient of is not")
            }
            _ => None,
        }
    }

    fn has(config: &GatedAttentionConfig, shapes: &GatedAttentionBackwardShapes, row: &Operand) -> bool {
        let linear = config.chunk().is_some() || !row.name.ends_with("_lin");
        match (row.name, row.access) {
            ("z" | "u" | "kv_lens", _) => shapes.has(row.name),
            ("q" | "k" | "q_lin" | "k_lin", _) => !shapes.shared_z && linear,
            ("o", _) => config.adds_up() && (shapes.dq || shapes.dk || shapes.dz || shapes.dmaps),
            (_, Access::Read) => shapes.shared_z && linear,
            // A plan without tensors is one of something.
            ("dv", _) => shapes.dv || !OPERANDS.iter().any(|row| shapes.has(row.name) && row.name.starts_with('d')),
            (name, _) if name.starts_with("dgamma_") || name.starts_with("dbeta_") => shapes.dmaps && linear,
            (name, _) => shapes.has(name),
        }
    }

    fn build(_: PlanBuilder<'_>, _: &GatedAttentionConfig, _: &Problem, _: Option<&NoOffer>) -> Result<Plan> {
        Err(Error::Unsupported { reasons: vec!["gated_attention_backward has no kernels yet".into()] })
    }
}

/// Whether a gradient comes through the products of queries and keys.
fn is_of_scores(name: &str) -> bool {
    name.starts_with('d') && !["du", "dv", "dout"].contains(&name)
}
