//! What the GPU tests share: an adapter, random tensors, guarded outputs, and the tolerance rule.
#![allow(unused, reason = "each test binary uses its own part")]
#![allow(clippy::print_stderr, reason = "a test run says which adapter it had")]

use std::sync::{Once, OnceLock};

use proptest::prelude::ProptestConfig;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::half::{bf16, f16};
use wgpu_attention::{Context, ContextOptions, DType, HostView, TensorView};

/// The context of this thread's test; a device each, so that software drivers compile on more than one core. SwiftShader compiles
/// one kernel at a time and keeps none on disk: there all tests of a program share what was compiled. Without an adapter the test
/// fails.
pub fn context() -> &'static Context {
    static FIRST: OnceLock<&'static Context> = OnceLock::new();
    thread_local!(static CONTEXT: &'static Context = of_thread(&FIRST, || Box::leak(Box::new(headless()))));
    CONTEXT.with(|context| *context)
}

/// What is made for each thread, or the first of them where threads share.
fn of_thread(first: &OnceLock<&'static Context>, make: fn() -> &'static Context) -> &'static Context {
    let mut own = None;
    let first = *first.get_or_init(|| *own.insert(make()));
    let device = first.capabilities();
    let shared = device.is_cpu && !device.is_llvmpipe;
    own.unwrap_or_else(|| if shared { first } else { make() })
}

/// [`context`], and on a software driver more that get a GPU's kernels: with whatever the device grants; and on llvmpipe, which
/// compiles faster than SwiftShader, with what every device does.
pub fn contexts() -> Vec<(&'static str, &'static Context)> {
    static FIRST: OnceLock<&'static Context> = OnceLock::new();
    thread_local! {
        static AS_GPU: &'static Context = of_thread(&FIRST, || as_gpu(context()));
        static AS_ANY_GPU: &'static Context =
            as_gpu(&device_with(wgpu::Limits::default()).expect("a device with default limits"));
    }
    let mut contexts = vec![("", context())];
    if context().capabilities().is_cpu {
        contexts.push((", by a GPU's kernels", AS_GPU.with(|context| *context)));
        if context().capabilities().is_llvmpipe {
            contexts.push((", by any GPU's kernels", AS_ANY_GPU.with(|context| *context)));
        }
    }
    contexts
}

/// A context that multiplies cooperative matrices, or none where the driver has none: what such a one says is asserted in
/// `tests/cooperative.rs`.
pub fn matrices() -> Option<&'static Context> {
    static OFFERED: OnceLock<bool> = OnceLock::new();
    thread_local!(static MATRICES: &'static Context = Box::leak(Box::new(with_matrices())));
    let offered = *OFFERED.get_or_init(|| !with_matrices().capabilities().options.matrix_sizes.is_empty());
    offered.then(|| MATRICES.with(|context| *context))
}

pub fn with_matrices() -> Context {
    let context = Context::headless_with_matrices("", ContextOptions::default()).expect("an adapter");
    if std::env::var_os("UNCHECKED").is_some() { without_bounds_checks(&context) } else { context }
}

/// Whether the driver is SwiftShader, which takes seconds for a kernel, or OpenGL, where a program runs one test at a time: tests
/// of every size take some, unless they are to be thorough.
pub fn compiles_slowly() -> bool {
    let device = context().capabilities();
    let opengl = context().device().adapter_info().backend == wgpu::Backend::Gl;
    device.is_cpu && (!device.is_llvmpipe || opengl) && std::env::var_os("THOROUGH").is_none()
}

/// [`contexts`] for what does not depend on tiles: without what only some GPUs grant, and without a GPU's kernels where they
/// compile slowly. The first has native f16 where the device has it, on llvmpipe the second has not.
pub fn own_and_any_gpu() -> Vec<(&'static str, &'static Context)> {
    let mut contexts = contexts();
    if contexts.len() == 3 {
        contexts.remove(1);
    }
    contexts.truncate(if compiles_slowly() { 1 } else { 2 });
    contexts
}

/// So many cases of a property, or half where each compiles slowly.
pub fn any(cases: u32) -> ProptestConfig {
    let cases = if compiles_slowly() { cases / 2 } else { cases };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A host tensor on the device, with the same strides, stored in this type.
pub fn stored_view<const RANK: usize>(
    context: &Context,
    view: &HostView<'_, f32, RANK>,
    dtype: DType,
) -> wgpu_attention::Uploaded<RANK> {
    context.upload_view_as(view, dtype).expect("a float")
}

fn as_gpu(context: &Context) -> &'static Context {
    let options = ContextOptions { assume_gpu: true, ..Default::default() };
    Box::leak(Box::new(Context::with_options(context.device().clone(), context.queue().clone(), options)))
}

/// [`context`] on a device of its own.
pub fn headless() -> Context {
    static ANNOUNCED: Once = Once::new();
    let context = Context::headless().unwrap_or_else(|error| {
        panic!(
            "{error}\nThe tests need a GPU adapter; a software driver will do. \
             On Debian or Ubuntu: apt install mesa-vulkan-drivers libvulkan1. See README.md, \"No adapter?\"."
        )
    });
    let info = context.device().adapter_info();
    let unchecked = std::env::var_os("UNCHECKED").is_some();
    ANNOUNCED.call_once(|| {
        let checks = if unchecked { " / no bounds checks" } else { "" };
        eprintln!("adapter: {} / {} / {} / {:?}{checks}", info.name, info.driver, info.driver_info, info.backend);
    });
    let options = ContextOptions { assume_gpu: by_a_gpus_kernels(), ..Default::default() };
    let context = Context::with_options(context.device().clone(), context.queue().clone(), options);
    if unchecked { without_bounds_checks(&context) } else { context }
}

/// Whether everything runs by a GPU's kernels, whatever the adapter: in a test binary that says so by its name, and with AS_GPU in
/// the environment.
pub fn by_a_gpus_kernels() -> bool {
    env!("CARGO_CRATE_NAME").ends_with("_as_gpu") || std::env::var_os("AS_GPU").is_some()
}

/// A context of the same device without wgpu's bounds checks.
#[allow(unsafe_code, reason = "this is how tests look at kernels without the checks")]
pub fn without_bounds_checks(context: &Context) -> Context {
    // SAFETY: the same tests run with the checks on, to the same bits.
    unsafe { context.clone().without_bounds_checks() }
}

/// A device with nothing but what WebGPU promises, or less.
pub fn device_with(limits: wgpu::Limits) -> Option<Context> {
    pollster::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await.ok()?;
        let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
        let (device, queue) = adapter.request_device(&descriptor).await.ok()?;
        Some(Context::new(device, queue))
    })
}

/// A tensor of f32 in host memory.
#[derive(Clone, Debug)]
pub struct Tensor<const RANK: usize> {
    pub data: Vec<f32>,
    pub shape: [usize; RANK],
}

impl<const RANK: usize> Tensor<RANK> {
    /// Standard normal numbers.
    pub fn normal(seed: u64, shape: [usize; RANK]) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let data = (0..shape.iter().product()).map(|_| rng.sample(StandardNormal)).collect();
        Self { data, shape }
    }

    pub fn filled(value: f32, shape: [usize; RANK]) -> Self {
        Self { data: vec![value; shape.iter().product()], shape }
    }

    pub fn scaled(mut self, factor: f32) -> Self {
        self.data.iter_mut().for_each(|x| *x *= factor);
        self
    }

    /// What is left of it once it was stored in this type.
    pub fn rounded(mut self, dtype: DType) -> Self {
        let round = |x: f32| match dtype {
            DType::F16 => f16::from_f32(x).to_f32(),
            DType::BF16 => bf16::from_f32(x).to_f32(),
            _ => x,
        };
        self.data.iter_mut().for_each(|x| *x = round(*x));
        self
    }

    pub fn view(&self) -> HostView<'_, f32, RANK> {
        HostView::new(&self.data, self.shape).expect("the shape fits the data")
    }

    pub fn at_mut(&mut self, index: [usize; RANK]) -> &mut f32 {
        let place = index.iter().zip(&self.shape).fold(0, |place, (i, extent)| place * extent + i);
        &mut self.data[place]
    }
}

impl Tensor<4> {
    /// Each head of axis 1 `times` times in a row: what grouped heads stand for.
    pub fn repeat_heads(&self, times: usize) -> Self {
        let [batch, heads, len, dim] = self.shape;
        let head = len * dim;
        let repeated = self.data.chunks(head).flat_map(|head| std::iter::repeat_n(head, times));
        Self { data: repeated.flatten().copied().collect(), shape: [batch, heads * times, len, dim] }
    }
}

/// How a tensor lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Contiguous, 64 elements into the buffer: whole vec4s.
    Aligned,
    /// Contiguous, 67 elements in: every row starts off a multiple of four.
    Odd,
    /// As `[batch, len, heads, dim]` with `gap` elements between rows: strided.
    Interleaved { gap: usize },
}

impl Placement {
    fn offset(self) -> usize {
        match self {
            Self::Aligned => 64,
            Self::Odd => 67,
            Self::Interleaved { .. } => 128,
        }
    }

    /// Strides of a rank 4 tensor, and the elements it spans.
    fn strides(self, [batch, heads, len, dim]: [usize; 4]) -> ([usize; 4], usize) {
        match self {
            Self::Aligned | Self::Odd => ([heads * len * dim, len * dim, dim, 1], batch * heads * len * dim),
            Self::Interleaved { gap } => {
                let row = dim + gap;
                ([len * heads * row, row, heads * row, 1], batch * len * heads * row)
            }
        }
    }
}

/// A tensor in a GPU buffer whose every other element is NaN: before it, between its rows, and after it.
pub struct Placed {
    buffer: wgpu::Buffer,
    dtype: DType,
    offset: usize,
    strides: [usize; 4],
    shape: [usize; 4],
}

const GUARD: usize = 64;

impl Placed {
    /// An input.
    pub fn input(context: &Context, tensor: &Tensor<4>, placement: Placement) -> Self {
        Self::input_as(context, tensor, placement, DType::F32)
    }

    /// An input stored in this type.
    pub fn input_as(context: &Context, tensor: &Tensor<4>, placement: Placement, dtype: DType) -> Self {
        let mut placed = Self::layout(tensor.shape, placement);
        for (index, value) in placed.1.iter().zip(&tensor.data) {
            placed.0[*index] = *value;
        }
        placed.finish(context, tensor.shape, placement, dtype)
    }

    /// An output, itself filled with NaN.
    pub fn output(context: &Context, shape: [usize; 4], placement: Placement) -> Self {
        Self::output_as(context, shape, placement, DType::F32)
    }

    /// An output stored in this type.
    pub fn output_as(context: &Context, shape: [usize; 4], placement: Placement, dtype: DType) -> Self {
        Self::layout(shape, placement).finish(context, shape, placement, dtype)
    }

    fn layout(shape: [usize; 4], placement: Placement) -> Layout {
        let (strides, span) = placement.strides(shape);
        // Whole words, whatever the type.
        Layout(
            vec![f32::NAN; (placement.offset() + span + GUARD).next_multiple_of(2)],
            indices(shape, strides, placement.offset()),
        )
    }

    pub fn view(&self) -> TensorView<'_, 4> {
        TensorView::new(&self.buffer, self.dtype, self.shape.map(|x| x as u32))
            .with_offset(self.offset as u64)
            .with_strides(self.strides.map(|x| x as u64))
    }

    /// The first three axes, for outputs with one number per row.
    pub fn rows_view(&self) -> TensorView<'_, 3> {
        assert_eq!(self.shape[3], 1, "one number per row");
        let [b, h, l, _] = self.shape.map(|x| x as u32);
        let [sb, sh, sl, _] = self.strides.map(|x| x as u64);
        // Rows of one element: the innermost stride must be 1, so the placement must be contiguous.
        TensorView::new(&self.buffer, self.dtype, [b, h, l]).with_offset(self.offset as u64).with_strides([sb, sh, sl])
    }

    /// The last two axes of a tensor of one head, batch by batch.
    pub fn wide_rows_view(&self) -> TensorView<'_, 3> {
        assert_eq!(self.shape[1], 1, "one head");
        let [b, _, l, c] = self.shape.map(|x| x as u32);
        let [sb, _, sl, _] = self.strides.map(|x| x as u64);
        TensorView::new(&self.buffer, self.dtype, [b, l, c]).with_offset(self.offset as u64).with_strides([sb, sl, 1])
    }

    /// The last two axes of a tensor of one head and one batch.
    pub fn matrix_view(&self) -> TensorView<'_, 2> {
        assert_eq!(self.shape[..2], [1, 1], "one batch, one head");
        let [_, _, rows, columns] = self.shape.map(|x| x as u32);
        let strides = [self.strides[2] as u64, 1];
        TensorView::new(&self.buffer, self.dtype, [rows, columns]).with_offset(self.offset as u64).with_strides(strides)
    }

    /// The last axis alone.
    pub fn numbers_view(&self) -> TensorView<'_, 1> {
        assert_eq!(self.shape[..3], [1; 3], "one row");
        TensorView::new(&self.buffer, self.dtype, [self.shape[3] as u32]).with_offset(self.offset as u64)
    }

    /// The tensor's elements; checks that nothing else was written.
    pub fn read(&self, context: &Context, what: &str) -> Vec<f32> {
        let mut all = context.download_as(&self.buffer, self.dtype).expect("the output reads back");
        let own = indices(self.shape, self.strides, self.offset);
        let mut untouched = vec![true; all.len()];
        own.iter().for_each(|&index| untouched[index] = false);
        for (index, _) in untouched.iter().enumerate().filter(|(_, guard)| **guard) {
            assert!(all[index].is_nan(), "{what}: element {index} outside the view was overwritten by {}", all[index]);
        }
        own.iter().map(|&index| all[index]).collect()
    }
}

struct Layout(Vec<f32>, Vec<usize>);

impl Layout {
    fn finish(self, context: &Context, shape: [usize; 4], placement: Placement, dtype: DType) -> Placed {
        let (strides, _) = placement.strides(shape);
        let buffer = context.upload_as(&self.0, dtype).expect("a float");
        Placed { buffer, dtype, offset: placement.offset(), strides, shape }
    }
}

fn indices(shape: [usize; 4], strides: [usize; 4], offset: usize) -> Vec<usize> {
    let mut found = Vec::with_capacity(shape.iter().product());
    for b in 0..shape[0] {
        for h in 0..shape[1] {
            for l in 0..shape[2] {
                for c in 0..shape[3] {
                    found.push(offset + b * strides[0] + h * strides[1] + l * strides[2] + c * strides[3]);
                }
            }
        }
    }
    found
}

/// What rounding a number to this type adds to its error: relative to it, and in absolute terms.
pub fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (1.0 / f64::from(1 << 11), 1.0 / f64::from(1 << 25)),
        DType::BF16 => (1.0 / f64::from(1 << 8), 0.0),
        _ => (0.0, 0.0),
    }
}

/// One unit in the last place of a number near 1.
pub const ULP: f64 = 1.0 / (1 << 23) as f64;

/// What a kernel's error is measured against.
pub struct Expected<'a> {
    /// The case, for the message.
    pub case: &'a str,
    /// The tensor, and its shape.
    pub name: &'a str,
    pub shape: &'a [usize],
    /// The f64 twin's result.
    pub want: &'a [f64],
    /// Results of naive f32 runs with shuffled sums.
    pub naive: &'a [Vec<f32>],
    /// What a GPU's exp, log and division may add, relative to the largest `want`: derived where it is set.
    pub floor: f64,
    /// The same in absolute terms, for logarithms near 0.
    pub absolute_floor: f64,
}

/// How far a result is from the truth.
#[derive(Default)]
struct Errors {
    worst: f64,
    worst_at: usize,
    rms: f64,
    /// The largest number of the truth, and their root mean square.
    largest: f64,
    want_rms: f64,
}

/// How many naive runs the tolerance is taken from.
pub const NAIVE_RUNS: u64 = 8;

impl Expected<'_> {
    /// Asserts that the largest error is at most twice the worst naive run's plus the floor, and the RMS error at most
    /// 1e-5 of the RMS of the truth plus the floor. Minus infinity must be met bit for bit.
    pub fn assert(&self, got: &[f32]) {
        let errors = self.errors(got);
        let allowed_rms = (1e-5 + self.floor) * errors.want_rms + self.absolute_floor;
        self.hold(got, &errors, self.allowed(2.0, &errors), allowed_rms);
    }

    /// The same of gradients, whose terms cancel, and whose weights are made again from an lse that was rounded: three times the worst naive
    /// run's largest error, and its RMS error where that is more.
    pub fn assert_gradient(&self, got: &[f32]) {
        let rms = self.naive.iter().map(|run| self.errors(run).rms).fold(0.0, f64::max);
        let errors = self.errors(got);
        let allowed_rms = (1e-5 + self.floor) * errors.want_rms + self.absolute_floor;
        self.hold(got, &errors, self.allowed(3.0, &errors), allowed_rms.max(3.0 * rms));
    }

    /// So many times the worst naive run's largest error, and the floors.
    fn allowed(&self, times: f64, errors: &Errors) -> f64 {
        let naive = self.naive.iter().flat_map(|run| run.iter().zip(self.want));
        let naive = naive.filter(|(_, w)| w.is_finite()).map(|(&g, &w)| (f64::from(g) - w).abs()).fold(0.0, f64::max);
        times * naive + self.floor * errors.largest + self.absolute_floor
    }

    /// Asserts that the RMS error is at most 2e-3 of the RMS of the truth, as products with factors in f16 allow (each is off
    /// by up to 2^-11, at random), and none more than ten times that. Minus infinity must be met bit for bit.
    pub fn assert_f16(&self, got: &[f32]) {
        let errors = self.errors(got);
        let allowed = 2e-2 * errors.largest + self.absolute_floor;
        self.hold(got, &errors, allowed, 2e-3 * errors.want_rms + self.absolute_floor);
    }

    fn errors(&self, got: &[f32]) -> Errors {
        let Self { case, name, want, .. } = self;
        assert_eq!(got.len(), want.len(), "{case}: {name}: element count");
        let mut errors = Errors::default();
        let (mut squares, mut want_squares) = (0.0, 0.0);
        for (index, (&g, &w)) in got.iter().zip(*want).enumerate() {
            if w == f64::NEG_INFINITY {
                assert_eq!(g.to_bits(), f32::NEG_INFINITY.to_bits(), "{case}: {name}{}: got {g}", self.place(index));
                continue;
            }
            let error = (f64::from(g) - w).abs();
            assert!(!error.is_nan(), "{case}: {name}{}: got {g}, want {w}", self.place(index));
            if error > errors.worst {
                (errors.worst, errors.worst_at) = (error, index);
            }
            squares += error * error;
            want_squares += w * w;
            errors.largest = errors.largest.max(w.abs());
        }
        let count = want.len().max(1) as f64;
        Errors { rms: (squares / count).sqrt(), want_rms: (want_squares / count).sqrt(), ..errors }
    }

    fn hold(&self, got: &[f32], errors: &Errors, allowed: f64, allowed_rms: f64) {
        let Self { case, name, want, .. } = self;
        let Errors { worst, worst_at, rms, .. } = *errors;
        let place = self.place(worst_at);
        assert!(
            worst <= allowed,
            "{case}: {name}{place}: got {}, want {}: error {worst:.3e}, allowed {allowed:.3e}",
            got[worst_at],
            want[worst_at],
        );
        assert!(rms <= allowed_rms, "{case}: {name}: RMS error {rms:.3e}, allowed {allowed_rms:.3e}");
    }

    /// `[b, h, i, c]` of an element.
    fn place(&self, mut index: usize) -> String {
        let mut place: Vec<usize> = self
            .shape
            .iter()
            .rev()
            .map(|&extent| {
                let i = index % extent.max(1);
                index /= extent.max(1);
                i
            })
            .collect();
        place.reverse();
        format!("{place:?}")
    }
}

/// Asserts equality bit for bit.
pub fn assert_same_bits(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}: element count");
    for (index, (x, y)) in a.iter().zip(b).enumerate() {
        assert_eq!(x.to_bits(), y.to_bits(), "{what}: element {index}: {x} and {y}");
    }
}
