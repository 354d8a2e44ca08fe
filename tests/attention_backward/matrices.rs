//! Gradients by cooperative matrices, where the driver has them; `tests/cooperative.rs` tells what happens where it has none.

use wgpu_attention::attention::backward::reference::HostOutputs;
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{AttentionBackward, AttentionBackwardShapes, AttentionConfig, Causal, DType, Matrices, Scale};

use super::case::{Case, Gradients, Wanted, by_name};
use super::common::{Expected, Placement, assert_same_bits, matrices, rounding};
use super::halves::{OfHalves, in_units_of};
use super::{CAUSALS, hidden_may_be_nan, with};

impl Case {
    pub fn on_matrices(&self) -> Self {
        Self { config: self.config.matrices(Matrices::F16), ..self.clone() }
    }

    /// Against the twin, if there are matrices.
    pub fn check_on_matrices(&self, what: &str) {
        let Some(context) = matrices() else { return };
        let case = self.on_matrices();
        case.assert(&format!("{what}, by matrices"), &case.run(context, Placement::Aligned));
    }

    /// At most three times what the same sums are off by, with factors as f16 has them; and where dp - delta cancels, what that is off by of
    /// what it is the difference of, at random.
    pub fn assert_f16(&self, what: &str, got: &Gradients, want: &HostOutputs<f64>) {
        let runs = [1.0, 1.1, 1.3, 1.7].map(|unit| in_units_of(unit, || self.twin::<OfHalves>(SumOrder::InOrder)));
        let case =
            format!("{what}: {:?}, q {:?}, k {:?}, v {:?}", self.config, self.q.shape, self.k.shape, self.v.shape);
        for (name, got) in got {
            let want = by_name(want, name);
            let naive = runs.each_ref().map(|run| by_name(run, name).iter().map(|x| x.0 as f32).collect());
            // Of few keys, or few rows that see few, dp - delta may cancel in all; and a sum of one number may by chance be off by nothing.
            let few = if self.k.shape[2].min(self.q.shape[2]) <= 3 || name.ends_with("scale") {
                self.floors(name, 1.0 / f64::from(1 << 11)).1
            } else {
                0.0
            };
            let (floor, least) = if name.ends_with("scale") { (0.0, 0.0) } else { rounding(self.stored[1]) };
            let absolute_floor = few + least;
            Expected { case: &case, name, shape: &[want.len()], want, naive: &naive, floor, absolute_floor }
                .assert_gradient(got);
        }
    }
}

#[test]
fn a_plan_names_matrices() {
    let Some(context) = matrices() else { return };
    let op = AttentionBackward::new(context, AttentionConfig::new().matrices(Matrices::F16)).unwrap();
    let shapes = AttentionBackwardShapes::new(1, 64, 4096, 64);
    let plan = op.plan(&shapes, DType::F32).unwrap();
    let reason = plan.reason();
    assert_eq!(reason.matches("in f16, as asked, and subgroups of").count(), 2, "{reason}");
    let [bias_batches, bias_heads, bias_rows] = [Some(1), Some(1), Some(4096)];
    let biased = AttentionBackwardShapes { bias_batches, bias_heads, bias_rows, dbias: true, ..shapes };
    let reason = op.plan(&biased, DType::F32).unwrap();
    assert!(reason.reason().contains(" in f32, all tiles of pairs"), "{}", reason.reason());
    // Both sums of wide heads would fill the registers. A subgroup of more than 8 owns 16 rows, whose 256 dims find no room in 32 KiB.
    let wide = AttentionBackwardShapes { v_dim: 256, ..AttentionBackwardShapes::new(1, 8, 4096, 256) };
    let plan = op.plan(&wide, DType::F32).unwrap();
    let granted = context.device().limits().max_compute_workgroup_storage_size;
    let fits = reason.reason().contains("and subgroups of 8,") || granted >= 37 << 10;
    let walks = if fits { 2 } else { 1 };
    assert_eq!(plan.reason().matches("keys: ").count(), walks, "{}", plan.reason());
}

#[test]
fn lengths_around_every_tile() {
    if matrices().is_none() {
        return;
    }
    for len in [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49, 63, 64, 65] {
        for causal in [Causal::None, Causal::BottomRight] {
            Case::new(AttentionConfig::new().causal(causal), [1, 1, 1, len, len, 8, 8]).check_on_matrices("self");
        }
        Case::new(AttentionConfig::new().causal(Causal::BottomRight), [1, 2, 1, 3, len, 8, 8])
            .check_on_matrices("cross");
        Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 2, 1, len, 6, 8, 8]).check_on_matrices("cross");
    }
}

#[test]
fn scales_and_causal_masks() {
    if matrices().is_none() {
        return;
    }
    for scale in [Scale::Fixed(-0.5), Scale::LOG_N, Scale::PerRow] {
        for causal in CAUSALS {
            let config = AttentionConfig::new().scale(scale).causal(causal);
            Case::new(config, [2, 2, 1, 13, 21, 8, 8]).check_on_matrices("more keys");
            Case::new(config, [1, 2, 2, 37, 13, 8, 8]).with_lens(&[7]).check_on_matrices("fewer keys");
        }
    }
}

#[test]
fn every_option_together() {
    if matrices().is_none() {
        return;
    }
    for (left, right) in [(None, None), (Some(0), Some(4)), (Some(30), None), (Some(1 << 30), Some(1 << 30))] {
        for causal in [Causal::None, Causal::BottomRight] {
            let config = AttentionConfig::new().causal(causal).window(left, right).scale(Scale::LOG_N).softcap(1.5);
            let case = Case::new(config, [2, 4, 2, 50, 79, 8, 8]).with_lens(&[79, 45]);
            case.with_mask([1, 4, 50, 79]).with_bias([2, 1, 1, 79]).with_statistics().check_on_matrices("all");
        }
    }
}

#[test]
fn head_dims_placements_and_types() {
    let Some(context) = matrices() else { return };
    let cases = [
        ([1, 1], Placement::Odd, [DType::F32; 2]),
        ([33, 20], Placement::Odd, [DType::F32, DType::F16]),
        ([24, 72], Placement::Interleaved { gap: 4 }, [DType::BF16, DType::F32]),
        ([16, 16], Placement::Aligned, [DType::F16; 2]),
        ([144, 116], Placement::Interleaved { gap: 4 }, [DType::F32; 2]),
    ];
    for ([head_dim, v_dim], placement, stored) in cases {
        let config = AttentionConfig::new().causal(Causal::BottomRight);
        let case = Case::new(config, [1, 2, 1, 37, 70, head_dim, v_dim]).on_matrices().stored(stored);
        case.assert(&format!("{placement:?}, {stored:?}"), &case.run(context, placement));
    }
}

/// In ranges, in blocks, and each gradient alone: the same bits, where its tiles are the same.
#[test]
fn what_is_walked_in_parts() {
    let Some(context) = matrices() else { return };
    let config = AttentionConfig::new().causal(Causal::BottomRight);
    let case = Case::new(config, [3, 4, 2, 70, 90, 8, 8]).on_matrices();
    let planned = |case: &Case| {
        case.call(context, Placement::Aligned, case.saved(), |op, inputs, gradients| {
            let call = op.prepare(inputs, gradients).unwrap();
            context.run(&call).unwrap();
            call.plan().reason().to_owned()
        })
    };
    let (plan, whole) = planned(&case);
    let ranges = with(context, |options| options.max_keys_per_split = Some(32));
    case.assert("in ranges", &case.run(&ranges, Placement::Aligned));
    let blocks = with(context, |options| options.max_workspace_bytes = 150 << 10);
    case.assert("in blocks", &case.run(&blocks, Placement::Aligned));
    let none = Wanted { dq: false, dk: false, dv: false, rest: false };
    for wanted in [Wanted { dq: true, ..none }, Wanted { dk: true, ..none }, Wanted { dv: true, ..none }] {
        let one = Case { wanted, ..case.clone() };
        let (own_plan, own) = planned(&one);
        one.assert("one", &own);
        for (name, got) in own.iter().filter(|_| plan.contains(&own_plan)) {
            let same = whole.iter().find(|(own, _)| own == name).expect("a gradient");
            assert_same_bits(name, &same.1, got);
        }
    }
    for again in case.reruns(context, 20) {
        for ((name, got), (_, want)) in again.iter().zip(&whole) {
            assert_same_bits(name, got, want);
        }
    }
    let alone = Case { dout: None, ..case.with_statistics() };
    alone.assert("statistics alone", &alone.run(context, Placement::Aligned));
}

#[test]
fn grouped_heads_are_repeated_heads() {
    let Some(context) = matrices() else { return };
    let config = AttentionConfig::new().causal(Causal::TopLeft).window(Some(13), None);
    let case = Case::new(config, [2, 6, 2, 21, 33, 8, 8]).on_matrices();
    let repeated = Case { k: case.k.repeat_heads(3), v: case.v.repeat_heads(3), ..case.clone() };
    let [own, each] = [&case, &repeated].map(|case| case.run(context, Placement::Aligned));
    case.assert("grouped", &own);
    assert_same_bits("dq", &own[0].1, &each[0].1);
}

#[test]
fn what_is_hidden_may_be_nan_on_matrices() {
    let Some(context) = matrices() else { return };
    hidden_may_be_nan(AttentionConfig::new().matrices(Matrices::F16), context);
}

/// Each row's dq is as exact as the others, whatever comes in for it; and so are all, of which f16 has none.
#[test]
fn gradients_of_any_size() {
    let Some(context) = matrices() else { return };
    let [rows, keys, dim] = [40, 100, 8];
    let plain = Case::new(AttentionConfig::new(), [1, 1, 1, rows, keys, dim, dim]).on_matrices();
    let plain = Case { wanted: Wanted { rest: false, ..plain.wanted }, ..plain };
    let want = plain.run(context, Placement::Aligned);
    for power in [-100, -60, -20, 20, 60, 100] {
        let factor = f32::powi(2.0, power);
        let case = Case { dout: plain.dout.clone().map(|dout| dout.scaled(factor)), ..plain.clone() };
        for ((name, got), (_, want)) in case.run(context, Placement::Aligned).iter().zip(&want) {
            let want: Vec<_> = want.iter().map(|x| x * factor).collect();
            assert_same_bits(&format!("{name} of 2^{power}"), got, &want);
        }
    }
    let mut case = plain.clone();
    let factor = |row: usize| f32::powi(2.0, row as i32 * 7 % 121 - 60);
    for (row, dout) in case.dout.as_mut().unwrap().data.chunks_mut(dim).enumerate() {
        dout.iter_mut().for_each(|x| *x *= factor(row));
    }
    let got = case.run(context, Placement::Aligned);
    let of_row = |at: usize| want[0].1[at] * factor(at / dim);
    assert_same_bits("dq", &got[0].1, &(0..rows * dim).map(of_row).collect::<Vec<_>>());
    case.assert("rows of any size", &got);
}

/// Values and scales grow along the keys, and what comes in along the queries: units grow with them, and sums are rescaled.
#[test]
fn units_that_grow_late_rescale_what_was_summed() {
    let config = AttentionConfig::new().scale(Scale::PerRow);
    let mut case = Case::new(config, [1, 1, 1, 150, 150, 8, 8]);
    for row in 0..150 {
        let factor = f32::powi(2.0, row as i32 / 5);
        for c in 0..8 {
            *case.v.at_mut([0, 0, row, c]) *= factor / 32768.0;
            *case.dout.as_mut().unwrap().at_mut([0, 0, row, c]) *= factor;
        }
    }
    case.check_on_matrices("growing");
}

#[test]
fn large_scores_stay_finite() {
    let Some(context) = matrices() else { return };
    for factor in [1e2, 1e4, 1e9] {
        let mut case = Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 1, 1, 40, 90, 8, 8]).on_matrices();
        case.q = case.q.scaled(factor);
        case.k = case.k.scaled(factor);
        // Of weights that are 0 and 1, both large, whatever was hidden, and what came in.
        for (name, got) in case.with_statistics().run(context, Placement::Aligned) {
            assert!(got.iter().all(|x| x.is_finite()), "{factor}: {name}: {got:?}");
        }
    }
}
