//! Random sizes, options and bounds.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

/// What shapes a kernel's code.
#[derive(Clone, Debug)]
struct Shaping {
    head_dim: usize,
    v_dim: usize,
    scales: Vec<Scale>,
    softcap: bool,
    lens: bool,
    bias: bool,
    mask: bool,
    odd: bool,
    split: bool,
}

/// A few, others in each run: a software driver takes a second to compile each.
fn any_shaping() -> impl Strategy<Value = Shaping> {
    const FEW: usize = 12;
    let options = any::<[bool; 6]>();
    let each = (1..70usize, 1..70usize, prop::sample::select(SCALES.to_vec()), options).prop_map(
        |(head_dim, v_dim, scale, [softcap, lens, bias, mask, odd, split])| {
            let kind = |scale: &Scale| match scale {
                Scale::InvSqrtDim | Scale::Fixed(_) => 0,
                Scale::PerRow => 1,
                _ => 2,
            };
            let scales = SCALES.into_iter().filter(|other| kind(other) == kind(&scale)).collect();
            Shaping { head_dim, v_dim, scales, softcap, lens, bias, mask, odd, split }
        },
    );
    let few = prop::collection::vec(each, FEW).new_tree(&mut TestRunner::default()).expect("nothing is filtered");
    prop::sample::select(few.current())
}

/// A case, its placement, and the most keys of a range.
fn any_case() -> impl Strategy<Value = (Case, Placement, Option<u32>)> {
    let sizes = (1..3usize, 1..3usize, 1..3usize, 1..40usize, 1..60usize);
    let causal = prop::sample::select(CAUSALS.to_vec());
    let end = || prop::option::of(0..50u32);
    let options = (causal, any::<prop::sample::Selector>(), end(), end(), 0.5..20.0f32, any::<[bool; 2]>(), 1..40u32);
    (any_shaping(), sizes, options).prop_map(|(shaping, (batch, kv_heads, group, q_len, kv_len), options)| {
        let (causal, scale, left, right, softcap, [wide_bias, wide_mask], keys) = options;
        let Shaping { head_dim, v_dim, scales, .. } = shaping;
        let config = AttentionConfig::new().causal(causal).window(left, right).scale(scale.select(scales));
        let config = AttentionConfig { softcap: shaping.softcap.then_some(softcap), ..config };
        let heads = kv_heads * group;
        let mut case = Case::new(config, [batch, heads, kv_heads, q_len, kv_len, head_dim, v_dim]);
        let extent = |wide: bool| if wide { [batch, heads, q_len, kv_len] } else { [1, 1, 1, kv_len] };
        if shaping.lens {
            case = case.with_lens(&[(kv_len / 2) as u32, kv_len as u32][..batch.min(2)]);
        }
        if shaping.bias {
            case = case.with_bias(extent(wide_bias));
        }
        if shaping.mask {
            case = case.with_mask(extent(wide_mask));
        }
        let placement = if shaping.odd { Placement::Odd } else { Placement::Interleaved { gap: 4 } };
        (case, placement, shaping.split.then_some(keys))
    })
}

proptest! {
    #![proptest_config(common::any(48))]
    #[test]
    fn any_shape_and_options_agree_with_the_twin((case, placement, max_keys_per_split) in any_case()) {
        let context = context_with(ContextOptions { max_keys_per_split, ..Default::default() });
        case.assert(&format!("{placement:?}, splits of {max_keys_per_split:?}"), &case.run(&context, placement));
    }
}
