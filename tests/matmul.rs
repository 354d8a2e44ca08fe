//! Matrix products on the GPU against their f64 twin.

mod common;
#[path = "matmul/gradients.rs"]
mod gradients;

use common::{
    Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, context, contexts, device_with, matrices,
    own_and_any_gpu, rounding,
};
use proptest::prelude::*;
use wgpu_attention::matmul::reference::{HostInputs, matmul, matmul_in};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Activation, Context, ContextOptions, DType, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, MatMulShapes,
    Matrices, TensorView,
};

const ACTIVATIONS: [Activation; 4] = [Activation::None, Activation::Silu, Activation::Relu, Activation::GeluTanh];

/// A problem with all its tensors in host memory.
#[derive(Clone, Debug)]
struct Case {
    config: MatMulConfig,
    /// As they lie in memory: `[batch or 1, heads or 1, rows, columns]`, or with rows and columns swapped.
    a: Tensor<4>,
    b: Tensor<4>,
    /// Whether a and b are swapped.
    transposed: [bool; 2],
    /// Any extent may be 1.
    bias: Option<Tensor<4>>,
    /// The same; with it the result is a gradient.
    dc: Option<Tensor<4>>,
    /// `[batch, heads, m, n]`.
    c: [usize; 4],
    /// The types of a, b, the bias and dc, and c.
    stored: [DType; 4],
}

impl Case {
    fn new(activation: Activation, [m, n, k]: [usize; 3]) -> Self {
        Self::batched(activation, [1, 1, m, n], k, [[1, 1], [1, 1]], [false, false])
    }

    /// `outer`: the batch and heads of a and of b, as in c or 1.
    fn batched(activation: Activation, c: [usize; 4], k: usize, outer: [[usize; 2]; 2], transposed: [bool; 2]) -> Self {
        let matrix = |seed, outer: [usize; 2], [rows, columns]: [usize; 2], transposed| {
            let [rows, columns] = if transposed { [columns, rows] } else { [rows, columns] };
            Tensor::normal(seed, [outer[0], outer[1], rows, columns])
        };
        let seed = (c[2] * 31 + c[3] * 17 + k * 7) as u64;
        Self {
            config: MatMulConfig::new().activation(activation),
            a: matrix(seed, outer[0], [c[2], k], transposed[0]),
            b: matrix(seed + 1, outer[1], [k, c[3]], transposed[1]),
            transposed,
            bias: None,
            dc: None,
            c,
            stored: [DType::F32; 4],
        }
    }

    /// The same with operands stored in these types, and with the numbers that they hold then.
    fn stored(self, [a, b, bias, c]: [DType; 4]) -> Self {
        Self {
            a: self.a.rounded(a),
            b: self.b.rounded(b),
            bias: self.bias.map(|tensor| tensor.rounded(bias)),
            dc: self.dc.map(|tensor| tensor.rounded(bias)),
            stored: [a, b, bias, c],
            ..self
        }
    }

    fn with_bias(mut self, shape: [usize; 4]) -> Self {
        self.bias = Some(Tensor::normal(5, shape));
        self
    }

    fn with_dc(mut self, shape: [usize; 4]) -> Self {
        self.dc = Some(Tensor::normal(6, shape));
        self
    }

    fn k(&self) -> usize {
        self.a.shape[if self.transposed[0] { 2 } else { 3 }]
    }

    fn host(&self) -> HostInputs<'_> {
        let [batch, heads, m, n] = self.c;
        let factor = |tensor, transposed, shape| {
            let view = Tensor::view(tensor);
            (if transposed { view.swap_axes(2, 3) } else { view }).broadcast_to(shape)
        };
        let a = factor(&self.a, self.transposed[0], [batch, heads, m, self.k()]);
        let b = factor(&self.b, self.transposed[1], [batch, heads, self.k(), n]);
        let mut inputs = HostInputs::new(a, b);
        inputs.bias = self.bias.as_ref().map(|bias| bias.view().broadcast_to(self.c));
        inputs.dc = self.dc.as_ref().map(|dc| dc.view().broadcast_to(self.c));
        inputs
    }

    /// c from the GPU, its operands in memory that is NaN everywhere else.
    fn run(&self, context: &Context, placement: Placement) -> Vec<f32> {
        let extents = |shape: [usize; 4]| shape.map(|extent| extent as u32);
        let [batch, heads, m, n] = self.c;
        let [a_type, b_type, bias_type, c_type] = self.stored;
        let [a, b] = [(&self.a, a_type), (&self.b, b_type)]
            .map(|(tensor, dtype)| Placed::input_as(context, tensor, placement, dtype));
        let bias = self.bias.as_ref().map(|bias| Placed::input_as(context, bias, placement, bias_type));
        let dc = self.dc.as_ref().map(|dc| Placed::input_as(context, dc, placement, bias_type));
        let c = Placed::output_as(context, self.c, placement, c_type);
        fn view(placed: &Placed, transposed: bool) -> TensorView<'_, 4> {
            if transposed { placed.view().swap_axes(2, 3) } else { placed.view() }
        }
        let inputs = MatMulInputs {
            a: view(&a, self.transposed[0]).broadcast_to(extents([batch, heads, m, self.k()])),
            b: view(&b, self.transposed[1]).broadcast_to(extents([batch, heads, self.k(), n])),
            bias: bias.as_ref().map(|bias| bias.view().broadcast_to(extents(self.c))),
            dc: dc.as_ref().map(|dc| dc.view().broadcast_to(extents(self.c))),
        };
        let product = MatMul::new(context, self.config).unwrap();
        let prepared = product.prepare(inputs, MatMulOutputs { c: c.view() }).unwrap();
        context.run(&prepared).unwrap();
        c.read(context, "c")
    }

    /// Compares results with the twin.
    fn assert(&self, what: &str, got: &[f32]) {
        let inputs = self.host();
        let want = matmul(&self.config, &inputs).unwrap().c;
        if self.config.matrices == Matrices::F16 {
            let case = format!("{what}: {:?}, a {:?}, b {:?}, c {:?}", self.config, self.a.shape, self.b.shape, self.c);
            let (name, shape) = ("c", &self.c[..]);
            let (naive, floor, absolute_floor) = (&[][..], 0.0, 0.0);
            Expected { case: &case, name, shape, want: &want, naive, floor, absolute_floor }.assert_f16(got);
            return;
        }
        let naive = |seed| matmul_in::<f32>(&self.config, &inputs, SumOrder::Shuffled(seed)).unwrap().c;
        let naive: Vec<_> = (0..NAIVE_RUNS).map(naive).collect();
        let case = format!(
            "{what}: {:?}, a {:?}, b {:?}, transposed {:?}, c {:?}{}",
            self.config.activation,
            self.a.shape,
            self.b.shape,
            self.transposed,
            self.c,
            match (&self.bias, &self.dc) {
                (None, None) => "",
                (Some(_), None) => ", bias",
                (None, Some(_)) => ", dc",
                (Some(_), Some(_)) => ", bias and dc",
            },
        );
        // A gate 1 / (1 + t), t = exp(-|y|): t is off by (3 + 2|y|) ulp, and so is the gate by at most 2.5 of its own; the
        // sum, the division and the product add 4. For gelu, y is off by 6 ulp of itself, and y t is at most 0.4.
        // Of the slopes, the second term has t times y, which is at most 0.4 for silu and 1 for gelu, and 3 products more.
        let floor = match (self.config.activation, &self.dc) {
            (Activation::None | Activation::Relu, _) => 0.0,
            (Activation::Silu, None) => 7.0 * ULP,
            (Activation::GeluTanh, None) => 10.0 * ULP,
            (Activation::Silu, Some(_)) => 10.0 * ULP,
            (Activation::GeluTanh, Some(_)) => 16.0 * ULP,
        };
        // A sum of few terms may be rounded in other places than the naive ones: an ulp of a product, and one of a sum.
        let largest = |tensor: &Tensor<4>| tensor.data.iter().fold(0.0, |most: f64, x| most.max(f64::from(x.abs())));
        let (stored, least) = rounding(self.stored[3]);
        // The slopes of slopes are at most 1.
        let dc = self.dc.as_ref().map_or(1.0, |dc| largest(dc).max(1.0));
        let (floor, absolute_floor) = (floor + stored, 2.0 * ULP * largest(&self.a) * largest(&self.b) * dc + least);
        let expected =
            Expected { case: &case, name: "c", shape: &self.c, want: &want, naive: &naive, floor, absolute_floor };
        expected.assert(got);
    }

    fn check(&self, what: &str) {
        self.check_at(what, Placement::Aligned);
    }

    fn check_at(&self, what: &str, placement: Placement) {
        for (kernels, context) in contexts() {
            self.assert(&format!("{what}{kernels}"), &self.run(context, placement));
        }
        // An epilogue is the same behind every kernel: all of it, or none.
        let all_or_none = (self.config.activation == Activation::None) == self.bias.is_none();
        // f16 has no such numbers.
        let large = self.a.data.iter().any(|x| x.abs() > 1e3);
        // Near 0 the slope of relu jumps.
        let jumps = self.dc.is_some() && self.config.activation == Activation::Relu;
        if let (Some(context), true) = (matrices(), all_or_none && !large && !jumps) {
            let config = self.config.matrices(Matrices::F16);
            let case = Self { config, ..self.clone() };
            case.assert(&format!("{what}, by matrices"), &case.run(context, placement));
        }
    }
}

/// Each operand in each type, where fours of neighbours lie in whole words and where they do not.
#[test]
fn operands_in_sixteen_bits() {
    use DType::{BF16, F16, F32};
    let types = [[F16; 4], [BF16; 4], [F32, F16, BF16, F32], [BF16, F32, F16, F16], [F16, BF16, F32, BF16]];
    for (turn, stored) in types.into_iter().enumerate() {
        // Not every type with every placement: each kernel takes a software driver a second to compile.
        for (at, transposed) in [[turn.is_multiple_of(2), false], [false, turn < 2]].into_iter().enumerate() {
            let ([m, n, k], placement) = [
                ([36, 40, 20], Placement::Aligned),
                ([9, 7, 11], Placement::Interleaved { gap: 1 }),
                ([5, 70, 33], Placement::Interleaved { gap: 2 }),
            ][(turn + at) % 3];
            let case = Case::batched(Activation::Silu, [1, 2, m, n], k, [[1, 2], [1, 1]], transposed);
            let case = case.with_bias([1, 1, 1, n]).stored(stored);
            for (kernels, context) in own_and_any_gpu() {
                case.assert(&format!("{stored:?}, {placement:?}{kernels}"), &case.run(context, placement));
            }
        }
    }
    // In ranges of k, which are summed up in f32.
    let case = Case::new(Activation::None, [4, 8, 3000]).stored([F16; 4]);
    own_and_any_gpu().iter().for_each(|(kernels, context)| {
        case.assert(&format!("ranges{kernels}"), &case.run(context, Placement::Aligned));
    });
}

#[test]
fn sizes_around_every_tile() {
    for m in [1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129] {
        Case::new(Activation::None, [m, 36, 24]).check("m");
        Case::new(Activation::None, [m, 5, 7]).check("odd m");
    }
    for n in [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 63, 64, 65, 67, 68, 255, 256, 257, 260] {
        Case::new(Activation::None, [9, n, 20]).check("n");
        Case::new(Activation::None, [40, n, 20]).check("n");
    }
    for k in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31, 32, 33, 36, 63, 65, 129] {
        Case::new(Activation::None, [8, 12, k]).check("k");
        Case::new(Activation::None, [36, 12, k]).check("k");
    }
    Case::new(Activation::None, [1, 1, 1]).check("one");
    Case::new(Activation::None, [1, 1, 1000]).check("a dot product");
}

#[test]
fn enough_tiles_to_fill_a_gpu() {
    for transposed in [[false, false], [false, true], [true, false], [true, true]] {
        Case::batched(Activation::None, [8, 16, 129, 3], 5, [[8, 1], [1, 16]], transposed).check("narrow");
        Case::batched(Activation::None, [2, 16, 132, 136], 20, [[1, 16], [2, 1]], transposed).check("wide");
    }
}

#[test]
fn transposes_strides_and_broadcasts() {
    let placements = [Placement::Aligned, Placement::Odd, Placement::Interleaved { gap: 0 }];
    let gaps = [Placement::Interleaved { gap: 4 }, Placement::Interleaved { gap: 3 }];
    for transposed in [[false, false], [false, true], [true, false], [true, true]] {
        for placement in placements.into_iter().chain(gaps) {
            for [m, n, k] in [[40, 36, 20], [35, 33, 19], [36, 33, 20], [35, 36, 20], [5, 8, 3]] {
                let case = Case::batched(Activation::None, [2, 3, m, n], k, [[2, 3], [2, 3]], transposed);
                case.check_at(&format!("{placement:?}"), placement);
            }
        }
        for outer in [[[1, 3], [2, 1]], [[2, 3], [1, 1]], [[1, 1], [2, 3]], [[2, 1], [1, 3]]] {
            Case::batched(Activation::None, [2, 3, 20, 24], 12, outer, transposed).check("broadcast");
        }
    }
}

#[test]
fn a_row_or_column_is_neither_or_both_ways() {
    for transposed in [[false, false], [false, true], [true, false], [true, true]] {
        for [m, n, k] in [[1, 9, 6], [9, 1, 6], [8, 8, 1], [1, 8, 1], [8, 1, 1], [1, 1, 8]] {
            let case = Case::batched(Activation::None, [2, 2, m, n], k, [[2, 2], [2, 2]], transposed);
            case.check_at("thin", Placement::Interleaved { gap: 1 });
        }
    }
}

#[test]
fn every_bias_and_activation() {
    for activation in ACTIVATIONS {
        // How rows that are no multiple of four are stored is the same for every activation.
        let sizes = if activation == Activation::None { &[[34, 36], [6, 33]][..] } else { &[[34, 36]] };
        for &[m, n] in sizes {
            let case = Case::batched(activation, [2, 2, m, n], 20, [[2, 2], [2, 2]], [false, true]);
            case.check("no bias");
            for shape in [[1, 1, 1, n], [2, 2, m, n], [1, 2, 1, n], [2, 1, m, n]] {
                case.clone().with_bias(shape).check("bias");
                case.clone().with_bias(shape).check_at("bias off a multiple of four", Placement::Odd);
            }
        }
    }
}

#[test]
fn activations_of_large_numbers() {
    for activation in ACTIVATIONS {
        let mut case = Case::new(activation, [12, 12, 3]);
        // Past f16 by far: what matrices make of that, `tests/cooperative.rs` says.
        case.a = case.a.scaled(1e15);
        for (kernels, context) in contexts() {
            case.assert(&format!("large{kernels}"), &case.run(context, Placement::Aligned));
        }
        case.a = case.a.scaled(1e-13);
        case.check("moderate");
    }
}

#[test]
fn long_sums_are_cut_into_ranges() {
    for transposed in [[false, false], [false, true], [true, false], [true, true]] {
        for placement in [Placement::Aligned, Placement::Odd] {
            for [heads, m, n, k] in [[2, 1, 32, 600], [1, 33, 5, 1030], [1, 20, 36, 515]] {
                let case = Case::batched(Activation::None, [1, heads, m, n], k, [[1, heads], [1, 1]], transposed);
                case.check_at("ranges", placement);
            }
        }
    }
    for activation in ACTIVATIONS {
        for bias in [[1, 1, 1, 32], [2, 1, 3, 32], [1, 1, 3, 32]] {
            let case = Case::batched(activation, [2, 1, 3, 32], 777, [[2, 1], [2, 1]], [false, true]);
            case.with_bias(bias).check("ranges, bias");
        }
    }
    for (_, context) in contexts() {
        let product = MatMul::new(context, MatMulConfig::new()).unwrap();
        let plan = product.plan(&MatMulShapes { heads: 2, ..MatMulShapes::new(1, 32, 600) }, DType::F32).unwrap();
        assert!(plan.dispatches() == 2 && plan.kernel().contains("matmul/combine"), "{}", plan.reason());
    }
}

#[test]
fn the_same_bits_on_every_run() {
    for size in [[70, 70, 70], [5, 70, 1400]] {
        let case = Case::new(Activation::GeluTanh, size);
        for (kernels, context) in contexts() {
            let first = case.run(context, Placement::Aligned);
            assert_same_bits(&format!("rerun{kernels}"), &first, &case.run(context, Placement::Aligned));
        }
    }
}

#[test]
fn long_work_is_split() {
    for [m, n, k] in [[200, 70, 40], [16, 32, 1400]] {
        let case = Case::batched(Activation::None, [2, 1, m, n], k, [[2, 1], [2, 1]], [false, false]);
        for (kernels, context) in contexts() {
            let options = ContextOptions { max_flops_per_dispatch: 1 << 19, ..context.capabilities().options };
            let split = Context::with_options(context.device().clone(), context.queue().clone(), options);
            let shapes = MatMulShapes { batch: 2, ..MatMulShapes::new(m as u32, n as u32, k as u32) };
            let plan = MatMul::new(&split, case.config).unwrap().plan(&shapes, DType::F32).unwrap();
            assert!(plan.dispatches() > 2, "{}", plan.reason());
            let whole = case.run(context, Placement::Aligned);
            assert_same_bits(&format!("split{kernels}"), &whole, &case.run(&split, Placement::Aligned));
        }
    }
}

#[test]
fn grids_are_folded() {
    let limits = wgpu::Limits { max_compute_workgroups_per_dimension: 3, ..wgpu::Limits::default() };
    let narrow = device_with(limits).expect("a device with default limits, but for narrow grids");
    let case = Case::batched(Activation::None, [3, 2, 70, 70], 12, [[3, 2], [3, 2]], [false, false]);
    case.assert("folded", &case.run(&narrow, Placement::Aligned));
}

#[test]
fn many_steps() {
    Case::new(Activation::None, [5, 6, 20_000]).check("long");
}

#[test]
fn nothing_to_do_is_no_error() {
    let buffer = context().allocate(16);
    let output = context().allocate(16);
    let product = MatMul::new(context(), MatMulConfig::new()).unwrap();
    for [batch, heads, m, n] in [[0, 1, 2, 2], [1, 0, 2, 2], [1, 1, 0, 2], [1, 1, 2, 0]] {
        let inputs = MatMulInputs::new(
            TensorView::f32(&buffer, [batch, heads, m, 3]),
            TensorView::f32(&buffer, [batch, heads, 3, n]),
        );
        let outputs = MatMulOutputs { c: TensorView::f32(&output, [batch, heads, m, n]) };
        let prepared = product.prepare(inputs, outputs).unwrap();
        assert_eq!(prepared.plan().dispatches(), 0);
        context().run(&prepared).unwrap();
    }
}

#[test]
fn a_plan_says_what_it_costs() {
    let shapes = MatMulShapes { heads: 2, bias: true, ..MatMulShapes::new(5, 6, 7) };
    let product = MatMul::new(context(), MatMulConfig::new()).unwrap();
    let plan = product.plan(&shapes, DType::F32).unwrap();
    assert_eq!(plan.flops(), 2 * 2 * 5 * 6 * 7);
    assert_eq!(plan.bytes(), 4 * 2 * (5 * 7 + 7 * 6 + 5 * 6 + 5 * 6));
    assert!(plan.kernel().starts_with("matmul/"), "{}", plan.kernel());
}

proptest! {
    #![proptest_config(common::any(16))]
    #[test]
    fn any_product(
        c in (1..3usize, 1..3usize, 1..70usize, 1..70usize),
        k in 1..70usize,
        transposed in any::<[bool; 2]>(),
        repeated in any::<[[bool; 2]; 2]>(),
        bias in prop::option::of(any::<[bool; 3]>()),
        activation in 0..4usize,
        placement in 0..3usize,
    ) {
        let c = [c.0, c.1, c.2, c.3];
        let extent = |repeated: bool, axis: usize| if repeated { 1 } else { c[axis] };
        let outer = repeated.map(|[batch, heads]| [extent(batch, 0), extent(heads, 1)]);
        let mut case = Case::batched(ACTIVATIONS[activation], c, k, outer, transposed);
        if let Some([batch, heads, m]) = bias {
            case = case.with_bias([extent(batch, 0), extent(heads, 1), extent(m, 2), c[3]]);
        }
        let placement = [Placement::Aligned, Placement::Odd, Placement::Interleaved { gap: 4 }][placement];
        case.check_at("any", placement);
    }
}

#[test]
fn a_product_over_no_k_is_its_bias_activated() {
    for activation in ACTIVATIONS {
        for (outer, transposed) in [([1, 1], [false; 2]), ([2, 3], [true; 2])] {
            let none = Case::batched(activation, [2, 3, 5, 7], 0, [outer, [1, 1]], transposed);
            for case in [none.clone(), none.clone().with_bias([1, 1, 5, 7])] {
                case.check("no k");
                let c = case.run(context(), Placement::Interleaved { gap: 2 });
                case.assert("no k, strided", &c);
                assert!(case.bias.is_some() || c.iter().all(|x| x.to_bits() == 0), "{activation:?}: {c:?}");
            }
            none.stored([DType::BF16, DType::F16, DType::F32, DType::F32]).check("no k, stored");
        }
    }
}

/// One number of a, and so one row of c.
#[test]
fn nan_comes_out_through_every_activation() {
    for activation in ACTIVATIONS {
        for nan in [f32::NAN, -f32::NAN] {
            let mut case = Case::new(activation, [9, 20, 12]);
            *case.a.at_mut([0, 0, 4, 5]) = nan;
            for (kernels, context) in contexts() {
                for (i, c) in case.run(context, Placement::Aligned).chunks(20).enumerate() {
                    assert!(c.iter().all(|x| x.is_nan() == (i == 4)), "{activation:?}{kernels}, row {i}: {c:?}");
                }
            }
        }
    }
}
