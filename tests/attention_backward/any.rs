//! Random sizes, options and bounds.

use std::sync::OnceLock;

use proptest::prelude::*;
use wgpu_attention::{AttentionConfig, Context, ContextOptions, Scale};

use super::CAUSALS;
use super::case::{Case, Wanted};
use super::common::{self, Placement, context};

/// Scales of one kind each, by which kernels differ.
const SCALES: [Scale; 3] = [Scale::Fixed(0.4), Scale::KappaLogN { kappa: 2.0 }, Scale::PerRow];

/// A case, and whether ranges are short. Few of what shapes a kernel's code: a software driver takes a second to compile each.
fn any_case() -> impl Strategy<Value = (Case, bool)> {
    let sizes = (1..3usize, 1..3usize, 1..4usize, 1..150usize, 1..150usize);
    let shaping = (0..4usize, prop::option::of(0..60u32), prop::option::of(0..60u32), any::<[bool; 3]>(), 0..6usize);
    (sizes, shaping, any::<bool>()).prop_map(
        |((batch, kv_heads, group, q_len, kv_len), (kind, left, right, wide, causal), split)| {
            let config = AttentionConfig::new().causal(CAUSALS[causal]).window(left, right).scale(SCALES[kind % 3]);
            let config = AttentionConfig { softcap: (kind == 3).then_some(3.0), ..config };
            let heads = kv_heads * group;
            let mut case = Case::new(config, [batch, heads, kv_heads, q_len, kv_len, 8, 8]);
            let extents = [batch, heads, q_len];
            let extent = |axis: usize| if wide[axis] { extents[axis] } else { 1 };
            if kind == 2 {
                case = case.with_scales([extent(0), extent(1), extent(2)]);
            }
            if kind >= 2 {
                case = case.with_bias([extent(0), extent(1), extent(2), kv_len]).with_statistics();
                case = case.with_mask([1, extent(1), extent(2), kv_len]);
            }
            if kind == 1 {
                case = case.with_lens(&[(kv_len / 2) as u32, kv_len as u32][..batch]);
                case.wanted = Wanted { dq: wide[0], dk: wide[1], dv: wide[1], rest: true };
            }
            (case, split)
        },
    )
}

/// The context, and one whose ranges are short; for all cases, as each compiles its own kernels.
fn contexts() -> &'static [Context; 2] {
    static BOTH: OnceLock<[Context; 2]> = OnceLock::new();
    BOTH.get_or_init(|| {
        [None, Some(64)].map(|max_keys_per_split| {
            let options = ContextOptions { max_keys_per_split, ..context().capabilities().options };
            Context::with_options(context().device().clone(), context().queue().clone(), options)
        })
    })
}

proptest! {
    #![proptest_config(common::any(24))]
    #[test]
    fn any_problem_is_right((case, split) in any_case()) {
        let what = if split { "in short ranges" } else { "whole" };
        case.assert(what, &case.run(&contexts()[usize::from(split)], Placement::Aligned));
    }
}
