//! The merge on the GPU against its f64 twin, and against attention over all keys at once.

mod common;

use common::{
    Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, context, own_and_any_gpu, rounding,
};
use proptest::prelude::*;
use wgpu_attention::merge::reference::{HostInputs, merge, merge_in};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, Context, DType, Error, HostView, Merge, MergeConfig,
    MergeInputs, MergeOutputs, MergeShapes, TensorView,
};

/// Parts of random rows, of which some see no key and hold NaN.
struct Case {
    accumulate: bool,
    entropy: bool,
    /// `[parts, batch, heads, len, v_dim]`; where the outputs hold a part, it is the last.
    shape: [usize; 5],
    o: Vec<f32>,
    lse: Vec<f32>,
    entropies: Vec<f32>,
    /// The types of o_parts and o.
    stored: [DType; 2],
}

/// What came out: o, lse and entropy.
type Outputs = [Vec<f32>; 3];

impl Case {
    fn new(shape: [usize; 5], accumulate: bool, entropy: bool) -> Self {
        let [parts, batch, heads, len, v_dim] = shape;
        let all = parts + usize::from(accumulate);
        let rows = batch * heads * len;
        let o = Tensor::normal(1, [all, rows, v_dim]).data;
        let lse = Tensor::normal(2, [all, rows]).scaled(3.0).data;
        let entropies = Tensor::normal(3, [all, rows]).data.iter().map(|x| x.abs()).collect();
        Self { accumulate, entropy, shape, o, lse, entropies, stored: [DType::F32; 2] }
    }

    /// Every row of a part for which `hides(part, row)` sees no key.
    fn hide(mut self, hides: impl Fn(usize, usize) -> bool) -> Self {
        let (rows, v_dim) = (self.rows(), self.shape[4]);
        for at in (0..self.lse.len()).filter(|at| hides(at / rows, at % rows)) {
            self.lse[at] = f32::NEG_INFINITY;
            self.entropies[at] = f32::NAN;
            self.o[at * v_dim..][..v_dim].fill(f32::NAN);
        }
        self
    }

    /// The same with o_parts and o stored in these types.
    fn stored(mut self, stored: [DType; 2]) -> Self {
        let parts = self.shape.iter().product();
        let held = self.o.split_off(parts);
        let [o_parts, held] = [(self.o, stored[0]), (held, stored[1])]
            .map(|(data, dtype)| Tensor { shape: [data.len()], data }.rounded(dtype).data);
        self.o = [o_parts, held].concat();
        Self { stored, ..self }
    }

    fn rows(&self) -> usize {
        self.shape[1..4].iter().product()
    }

    fn config(&self) -> MergeConfig {
        MergeConfig::new().accumulate(self.accumulate)
    }

    /// The twin's view of it.
    fn host(&self) -> HostInputs<'_> {
        let [parts, batch, heads, len, v_dim] = self.shape;
        let rows = self.rows();
        let (o, held_o) = self.o.split_at(parts * rows * v_dim);
        let (lse, held_lse) = self.lse.split_at(parts * rows);
        let (entropy, held_entropy) = self.entropies.split_at(parts * rows);
        let of_rows = |data| HostView::new(data, [batch, heads, len]).expect("rows");
        let of_parts = |data| HostView::new(data, [parts, batch, heads, len]).expect("rows of parts");
        let entropy_parts = self.entropy.then(|| of_parts(entropy));
        let o_parts = HostView::new(o, self.shape).expect("parts");
        let held_o = || HostView::new(held_o, [batch, heads, len, v_dim]).expect("o");
        HostInputs {
            entropy_parts,
            o: self.accumulate.then(held_o),
            lse: self.accumulate.then(|| of_rows(held_lse)),
            entropy: (self.accumulate && self.entropy).then(|| of_rows(held_entropy)),
            ..HostInputs::new(o_parts, of_parts(lse))
        }
    }

    /// On the GPU, with guards around the outputs and, if `odd`, every tensor off a multiple of four.
    fn run(&self, odd: bool) -> Outputs {
        self.run_on(context(), odd).expect("a merge")
    }

    fn run_on(&self, context: &Context, odd: bool) -> Result<Outputs, Error> {
        let [parts, batch, heads, len, v_dim] = self.shape;
        let (rows, start) = (self.rows(), usize::from(odd));
        let shifted = |data: &[f32]| context.upload(&[&vec![f32::NAN; start], data].concat());
        let (o, held_o) = self.o.split_at(parts * rows * v_dim);
        let (lse, held_lse) = self.lse.split_at(parts * rows);
        let (entropy, held_entropy) = self.entropies.split_at(parts * rows);
        let shifted_o = [&vec![f32::NAN; start], o, &[f32::NAN]].concat();
        let shifted_o = context.upload_as(&shifted_o, self.stored[0]).expect("a float");
        let buffers = [shifted_o, shifted(lse), shifted(entropy)];
        let shape = self.shape.map(|extent| extent as u32);
        let of_parts =
            |buffer| TensorView::f32(buffer, [shape[0], shape[1], shape[2], shape[3]]).with_offset(start as u64);
        let inputs = MergeInputs {
            o_parts: TensorView::new(&buffers[0], self.stored[0], shape).with_offset(start as u64),
            lse_parts: of_parts(&buffers[1]),
            entropy_parts: self.entropy.then(|| of_parts(&buffers[2])),
        };

        let placement = if odd { Placement::Odd } else { Placement::Aligned };
        let output = |held: &[f32], dim, placement, dtype| {
            let shape = [batch, heads, len, dim];
            match self.accumulate {
                true => Placed::input_as(context, &Tensor { data: held.to_vec(), shape }, placement, dtype),
                false => Placed::output_as(context, shape, placement, dtype),
            }
        };
        // Rows of 16 bits start at even elements.
        let gap = v_dim % 2;
        let o_placement = if self.stored[1] == DType::F32 { placement } else { Placement::Interleaved { gap } };
        let o = output(held_o, v_dim, o_placement, self.stored[1]);
        let [lse, entropy] = [held_lse, held_entropy].map(|held| output(held, 1, placement, DType::F32));
        let outputs = MergeOutputs {
            o: o.view(),
            lse: Some(lse.rows_view()),
            entropy: self.entropy.then(|| entropy.rows_view()),
        };
        let merge = Merge::new(context, self.config()).expect("a config");
        context.run(&merge.prepare(inputs, outputs)?)?;
        let entropies = if self.entropy { entropy.read(context, "entropy") } else { Vec::new() };
        Ok([o.read(context, "o"), lse.read(context, "lse"), entropies])
    }

    fn check(&self, what: &str) {
        self.check_on(context(), what);
    }

    fn check_on(&self, context: &Context, what: &str) {
        let case = format!("{what}: {:?}, accumulate {}, entropy {}", self.shape, self.accumulate, self.entropy);
        let want = merge(&self.config(), &self.host()).expect("the twin");
        let naive: Vec<_> = (0..NAIVE_RUNS)
            .map(|seed| merge_in::<f32>(&self.config(), &self.host(), SumOrder::Shuffled(seed)).expect("the twin"))
            .collect();
        let seen = self.lse.iter().filter(|lse| lse.is_finite());
        let spread = 2.0 * f64::from(seen.map(|lse| lse.abs()).fold(0.0, f32::max));
        // A weight exp(x) is off by (3 + 2|x|) ulp, twice; weights below e^-16 do not count. A division adds 2 ulp, and lse - largest
        // half an ulp of itself.
        let floor = ULP * (8.0 + 4.0 * spread.min(16.0));
        let absolute = (1.0 + spread) / f64::from(1 << 20);
        for odd in [false, true] {
            let [o, lse, entropy] = self.run_on(context, odd).expect("a merge");
            let (relative, least) = rounding(self.stored[1]);
            let [_, batch, heads, len, v_dim] = self.shape;
            let (o_shape, rows) = ([batch, heads, len, v_dim], [batch, heads, len]);
            let naive_o: Vec<_> = naive.iter().map(|out| out.o.clone()).collect();
            let naive_lse: Vec<_> = naive.iter().map(|out| out.lse.clone()).collect();
            let naive_entropy: Vec<_> = naive.iter().map(|out| out.entropy.clone()).collect();
            for (name, shape, want, naive, got, floor, absolute_floor) in [
                ("o", &o_shape[..], &want.o, &naive_o, &o, floor + relative, least),
                ("lse", &rows, &want.lse, &naive_lse, &lse, floor, absolute),
                ("entropy", &rows, &want.entropy, &naive_entropy, &entropy, floor, absolute),
            ] {
                Expected { case: &case, name, shape, want, naive, floor, absolute_floor }.assert(got);
            }
        }
    }
}

#[test]
fn parts_of_every_count_and_width() {
    for v_dim in [1, 2, 3, 4, 5, 8, 15, 16, 17, 64, 100, 255, 256, 257, 300] {
        let parts = 1 + v_dim % 4;
        Case::new([parts, 2, 3, 5, v_dim], v_dim % 2 == 0, v_dim % 3 == 0).check("width");
    }
    for parts in [1, 2, 3, 4, 5, 8, 33] {
        for flags in 0..4 {
            let case = Case::new([parts, 1, 2, 37, 12], flags & 1 == 1, flags & 2 == 2);
            case.hide(|part, row| (part + row) % 3 == 0).check("every third row sees nothing");
        }
    }
}

#[test]
fn outputs_stored_in_16_bits() {
    use DType::{BF16, F16, F32};
    for stored in [[F16, F16], [BF16, BF16], [F16, F32], [F32, BF16], [BF16, F16]] {
        for v_dim in [3, 8, 300] {
            for (kernels, context) in own_and_any_gpu() {
                let what = format!("{stored:?}{kernels}");
                let case = |accumulate| Case::new([3, 1, 2, 9, v_dim], accumulate, v_dim == 8).stored(stored);
                case(false).hide(|part, row| (part + row) % 3 == 0).check_on(context, &what);
                // Steps would round what is summed.
                match stored[1] {
                    F32 => case(true).check_on(context, &what),
                    _ => {
                        let error = case(true).run_on(context, false).expect_err("a rounded sum");
                        assert!(matches!(error, Error::DType { tensor: "o", .. }), "{error}");
                        assert!(error.to_string().contains("accumulate"), "{error}");
                    }
                }
            }
        }
    }
    // A part alone stays as it is in 16 bits as well.
    for dtype in [F16, BF16] {
        let case = Case::new([3, 1, 2, 9, 8], false, false).hide(|part, _| part != 1).stored([dtype; 2]);
        let [o, ..] = case.run(false);
        assert_same_bits("o", &o, &case.o[18 * 8..][..18 * 8]);
    }
}

#[test]
fn a_plan_is_made_for_a_type() {
    let shapes = MergeShapes::new(4, 1, 2, 8, 16);
    let bytes = |accumulate, dtype| {
        let merge = Merge::new(context(), MergeConfig::new().accumulate(accumulate)).expect("a config");
        merge.plan(&shapes, dtype).expect("a plan").bytes()
    };
    // o of 16 rows by 16, and an lse for each: four parts and the outputs.
    assert_eq!(bytes(false, DType::F32), 5 * 16 * 17 * 4);
    assert_eq!(bytes(false, DType::F16), 5 * 16 * (2 * 16 + 4));
    assert_eq!(bytes(true, DType::BF16), 4 * 16 * (2 * 16 + 4) + 2 * 16 * 17 * 4);
}

#[test]
fn a_part_alone_stays_as_it_is_bit_for_bit() {
    for (parts, accumulate) in [(1, false), (3, false), (1, true), (4, true)] {
        for v_dim in [7, 64] {
            let shape = [parts, 1, 2, 9, v_dim];
            let all = parts + usize::from(accumulate);
            for alone in 0..all {
                let mut case = Case::new(shape, accumulate, true);
                case.o.iter_mut().step_by(5).for_each(|x| *x = -0.0);
                let case = case.hide(|part, _| part != alone);
                let [o, lse, entropy] = case.run(false);
                let rows = case.rows();
                assert_same_bits("o", &o, &case.o[alone * rows * v_dim..][..rows * v_dim]);
                assert_same_bits("lse", &lse, &case.lse[alone * rows..][..rows]);
                assert_same_bits("entropy", &entropy, &case.entropies[alone * rows..][..rows]);
            }
        }
    }
}

#[test]
fn rows_that_see_no_key_are_zero() {
    for accumulate in [false, true] {
        let case = Case::new([3, 1, 1, 20, 6], accumulate, true).hide(|_, row| row % 2 == 0);
        let [o, lse, entropy] = case.run(true);
        for row in (0..20).step_by(2) {
            assert_eq!(o[6 * row..][..6], [0.0; 6]);
            assert_eq!(lse[row], f32::NEG_INFINITY);
            assert_eq!(entropy[row], 0.0);
        }
        case.check("every other row");
    }
}

#[test]
fn nan_comes_out() {
    for nan in [f32::NAN, -f32::NAN] {
        let clean = Case::new([3, 1, 1, 5, 6], false, true);
        let [mut lse, mut o, mut entropy] = [0; 3].map(|_| Case::new(clean.shape, false, true));
        // Of part 1, row 2.
        (lse.lse[7], o.o[7 * 6 + 4], entropy.entropies[7]) = (nan, nan, nan);
        let row_two = |out: &[f32]| out.iter().enumerate().all(|(at, x)| x.is_nan() == (at * 5 / out.len() == 2));
        let [merged, merged_lse, entropies] = lse.run(false);
        assert!(row_two(&merged) && row_two(&entropies), "lse: {merged:?}, {entropies:?}");
        // SwiftShader's exp makes an infinity of NaN.
        assert!(merged_lse.iter().enumerate().all(|(at, x)| x.is_finite() == (at != 2)), "lse: {merged_lse:?}");
        let [o, lse, _] = o.run(false);
        assert!(o.iter().enumerate().all(|(at, x)| x.is_nan() == (at == 16)) && lse.iter().all(|x| !x.is_nan()), "o");
        assert!(row_two(&entropy.run(false)[2]), "entropy");
    }
}

#[test]
fn no_parts_leave_what_there_is() {
    for entropy in [false, true] {
        let none = Case::new([0, 1, 2, 5, 6], false, entropy);
        none.check("no parts");
        let [o, lse, entropies] = none.run(false);
        assert!(o.iter().chain(&entropies).all(|x| x.to_bits() == 0), "{o:?} {entropies:?}");
        assert!(lse.iter().all(|x| x.to_bits() == f32::NEG_INFINITY.to_bits()), "{lse:?}");
        // Rows held, of which one sees no key.
        let held = Case::new(none.shape, true, entropy).hide(|_, row| row == 3);
        held.check("no parts, and what is held");
        let [o, lse, _] = held.run(true);
        assert_same_bits("held", &o[..18], &held.o[..18]);
        assert_same_bits("held", &lse, &held.lse);
    }
}

#[test]
fn ten_thousand_stays_finite_and_right() {
    let mut case = Case::new([4, 1, 1, 16, 8], false, false);
    let rows = case.rows();
    for (at, lse) in case.lse.iter_mut().enumerate() {
        *lse = [1e4, -1e4, 9_999.5, 1e4][at / rows];
    }
    let [o, lse, _] = case.run(false);
    assert!(o.iter().chain(&lse).all(|x| x.is_finite()));
    case.check("1e4");
}

#[test]
fn parts_of_any_lse_are_seen() {
    // One row of o; the same lse in all parts weighs them alike.
    for lse in [-1e28, -1e38, f32::MIN, 1e38] {
        let mut case = Case::new([3, 1, 1, 1, 1], false, true);
        case.o = vec![1.0, 2.0, 6.0];
        case.lse.fill(lse);
        case.entropies = vec![0.0, 0.5, 1.0];
        let [o, merged, entropy] = case.run(false);
        assert!((o[0] - 3.0).abs() < 1e-6 && merged[0] == lse, "lse {lse}: {} and {}", o[0], merged[0]);
        assert!((entropy[0] - 0.5 - 3.0_f32.ln()).abs() < 1e-6, "lse {lse}: entropy {}", entropy[0]);
    }
}

#[test]
fn the_same_bits_on_every_run() {
    let case = Case::new([5, 1, 3, 50, 40], true, true);
    let first = case.run(false);
    for _ in 0..10 {
        for (again, first) in case.run(false).iter().zip(&first) {
            assert_same_bits("again", again, first);
        }
    }
}

#[test]
fn the_order_of_parts_does_not_matter() {
    let case = Case::new([6, 1, 2, 11, 24], false, true).hide(|part, row| part == row % 6);
    let mut reversed = Case::new(case.shape, false, true);
    let (rows, v_dim) = (case.rows(), case.shape[4]);
    for (part, other) in (0..6).rev().enumerate() {
        reversed.o[part * rows * v_dim..][..rows * v_dim]
            .copy_from_slice(&case.o[other * rows * v_dim..][..rows * v_dim]);
        reversed.lse[part * rows..][..rows].copy_from_slice(&case.lse[other * rows..][..rows]);
        reversed.entropies[part * rows..][..rows].copy_from_slice(&case.entropies[other * rows..][..rows]);
    }
    for (one, other) in case.run(false).iter().zip(&reversed.run(false)) {
        for (a, b) in one.iter().zip(other) {
            assert!(a == b || (a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{a} and {b}");
        }
    }
}

/// Attention over ranges of the keys, merged, stacked and as around a ring, is attention over all keys.
#[test]
fn splits_of_the_keys_merge_into_attention() {
    let context = context();
    let (batch, heads, len, kv_len, dim) = (2, 3, 21, 50, 20);
    let [q, k, v] = [(1, len), (2, kv_len), (3, kv_len)]
        .map(|(seed, rows)| context.upload(&Tensor::normal(seed, [batch, heads, rows, dim]).data));
    let shape = |rows: usize| [batch, heads, rows, dim].map(|extent| extent as u32);
    let rows = [batch, heads, len].map(|extent| extent as u32);
    let (row_count, elements) = (batch * heads * len, batch * heads * len * dim);
    // The keys [17, 17) are none: no batch sees one there.
    let ranges = [(0, 17, 17), (17, 1, 0), (17, 8, 8), (25, 25, 25)];
    let attend = |first: usize,
                  count: usize,
                  lens: u32,
                  o: &wgpu::Buffer,
                  lse: &wgpu::Buffer,
                  entropy: &wgpu::Buffer,
                  at: usize| {
        let lens = context.upload(&vec![lens; batch]);
        let keys = |buffer| {
            let strides = [heads * kv_len * dim, kv_len * dim, dim, 1].map(|stride| stride as u64);
            TensorView::f32(buffer, shape(count)).with_strides(strides).with_offset((first * dim) as u64)
        };
        let mut inputs = AttentionInputs::new(TensorView::f32(&q, shape(len)), keys(&k), keys(&v));
        inputs.kv_lens = Some(TensorView::new(&lens, DType::U32, [batch as u32]));
        let mut outputs = AttentionOutputs::new(TensorView::f32(o, shape(len)).with_offset((at * elements) as u64));
        outputs.lse = Some(TensorView::f32(lse, rows).with_offset((at * row_count) as u64));
        outputs.entropy = Some(TensorView::f32(entropy, rows).with_offset((at * row_count) as u64));
        let attention = Attention::new(context, AttentionConfig::new()).expect("a config");
        context.run(&attention.prepare(inputs, outputs).expect("attention")).expect("it runs");
    };
    let buffers = |parts: usize| [elements, row_count, row_count].map(|count| context.allocate(parts * count));
    let [o, lse, entropy] = buffers(1);
    attend(0, kv_len, kv_len as u32, &o, &lse, &entropy, 0);
    let want = [&o, &lse, &entropy].map(|buffer| context.download(buffer).expect("attention's"));
    let [o_parts, lse_parts, entropy_parts] = buffers(ranges.len());
    for (part, (first, count, lens)) in ranges.into_iter().enumerate() {
        attend(first, count, lens, &o_parts, &lse_parts, &entropy_parts, part);
    }

    let part_rows = |parts: u32| [parts, rows[0], rows[1], rows[2]];
    let inputs = |first: usize, parts: u32| MergeInputs {
        o_parts: TensorView::f32(&o_parts, [parts, rows[0], rows[1], rows[2], dim as u32])
            .with_offset((first * elements) as u64),
        lse_parts: TensorView::f32(&lse_parts, part_rows(parts)).with_offset((first * row_count) as u64),
        entropy_parts: Some(TensorView::f32(&entropy_parts, part_rows(parts)).with_offset((first * row_count) as u64)),
    };
    let close = |what: &str, [o, lse, entropy]: [&wgpu::Buffer; 3]| {
        for (got, want) in [o, lse, entropy].iter().zip(&want) {
            for (g, w) in context.download(got).expect("merged").iter().zip(want) {
                assert!((g - w).abs() <= 4e-6 * (1.0 + w.abs()), "{what}: got {g}, want {w}");
            }
        }
    };
    let outputs = |[o, lse, entropy]: [&'_ wgpu::Buffer; 3], merge: &Merge, inputs: MergeInputs<'_>| {
        let mut outputs = MergeOutputs::new(TensorView::f32(o, shape(len)), TensorView::f32(lse, rows));
        outputs.entropy = Some(TensorView::f32(entropy, rows));
        context.run(&merge.prepare(inputs, outputs).expect("a merge")).expect("it runs");
    };
    let stacked = buffers(1);
    outputs(stacked.each_ref(), &Merge::new(context, MergeConfig::new()).expect("a config"), inputs(0, 4));
    close("stacked", stacked.each_ref());

    let filled = |count: usize, value: f32| context.upload(&vec![value; count]);
    let ring = [filled(elements, f32::NAN), filled(row_count, f32::NEG_INFINITY), filled(row_count, f32::NAN)];
    let step = Merge::new(context, MergeConfig::new().accumulate(true)).expect("a config");
    for part in [2, 3, 0, 1] {
        outputs(ring.each_ref(), &step, inputs(part, 1));
    }
    close("ring", ring.each_ref());
}

proptest! {
    #![proptest_config(common::any(24))]
    #[test]
    fn any_shape_agrees_with_the_twin(
        parts in 1usize..6, batch in 1usize..3, heads in 1usize..4, len in 1usize..40, v_dim in 1usize..80,
        accumulate: bool, entropy: bool, hidden in 1usize..7,
    ) {
        let case = Case::new([parts, batch, heads, len, v_dim], accumulate, entropy);
        case.hide(|part, row| (3 * part + row) % 7 < hidden - 1).check("any");
    }
}
