//! Sizes that no other test has: sequences past 16 bits, more workgroups than one dimension of a grid holds, and work
//! cut by a low bound. A few rows of each result are held against the twins.

mod common;

use common::{
    Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, by_a_gpus_kernels, context, device_with,
};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, Causal, Context, ContextOptions, GatedAttention,
    GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs, LinearAttention, LinearAttentionConfig,
    LinearAttentionInputs, LinearAttentionOutputs, LinearMode, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs,
    Scale, attention, gated_attention, linear_attention, matmul,
};

/// Self- or cross-attention without options: the operands that the three attentions share.
struct Operands {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
}

impl Operands {
    fn new(heads: usize, q_len: usize, kv_len: usize, dim: usize) -> Self {
        let [q, k, v] =
            [(1, q_len), (2, kv_len), (3, kv_len)].map(|(seed, len)| Tensor::normal(seed, [1, heads, len, dim]));
        Self { q, k, v }
    }

    fn attention(&self, context: &Context, config: AttentionConfig) -> Vec<f32> {
        let [q, k, v] = self.inputs(context);
        let o = Placed::output(context, self.q.shape, Placement::Aligned);
        let op = Attention::new(context, config).unwrap();
        let inputs = AttentionInputs::new(q.view(), k.view(), v.view());
        context.run(&op.prepare(inputs, AttentionOutputs::new(o.view())).unwrap()).unwrap();
        o.read(context, "o")
    }

    fn gated_attention(&self, context: &Context, config: GatedAttentionConfig) -> Vec<f32> {
        let [q, k, v] = self.inputs(context);
        let o = Placed::output(context, self.q.shape, Placement::Aligned);
        let op = GatedAttention::new(context, config).unwrap();
        let inputs = GatedAttentionInputs::new(q.view(), k.view(), v.view());
        context.run(&op.prepare(inputs, GatedAttentionOutputs::new(o.view())).unwrap()).unwrap();
        o.read(context, "o")
    }

    /// The output, and the number of dispatches.
    fn linear_attention(&self, context: &Context, config: LinearAttentionConfig) -> (Vec<f32>, usize) {
        let [q, k, v] = self.inputs(context);
        let o = Placed::output(context, self.q.shape, Placement::Aligned);
        let op = LinearAttention::new(context, config).unwrap();
        let inputs = LinearAttentionInputs::new(q.view(), k.view(), v.view());
        let prepared = op.prepare(inputs, LinearAttentionOutputs::new(o.view())).unwrap();
        context.run(&prepared).unwrap();
        (o.read(context, "o"), prepared.plan().dispatches())
    }

    fn inputs(&self, context: &Context) -> [Placed; 3] {
        [&self.q, &self.k, &self.v].map(|tensor| Placed::input(context, tensor, Placement::Aligned))
    }

    fn assert_attention(&self, config: AttentionConfig, o: &[f32], rows: &[[usize; 2]]) {
        use attention::reference::{HostInputs, attention_row};
        let inputs = HostInputs::new(self.q.view(), self.k.view(), self.v.view());
        // exp of an argument whose mean under the weights is at most log n, and a division; a log n scale moves a score,
        // here below 16 in absolute value, by a few ulp. (`tests/attention.rs` derives them.)
        let floor = ULP * (5.0 + 2.0 * (self.k.shape[2] as f64).ln() + 6.0 * 16.0);
        for &[h, i] in rows {
            let want = attention_row::<f64>(&config, &inputs, [0, h, i], SumOrder::InOrder).unwrap().o;
            let naive = |order| attention_row::<f32>(&config, &inputs, [0, h, i], order).unwrap().o;
            self.assert_row("attention", [h, i], o, &want, naive, floor);
        }
    }

    fn assert_gated_attention(&self, config: GatedAttentionConfig, o: &[f32], rows: &[[usize; 2]]) {
        use gated_attention::reference::{HostInputs, gated_attention_row};
        let inputs = HostInputs::new(self.q.view(), self.k.view(), self.v.view());
        for &[h, i] in rows {
            let want = gated_attention_row::<f64>(&config, &inputs, [0, h, i], SumOrder::InOrder).unwrap();
            let naive = |order| gated_attention_row::<f32>(&config, &inputs, [0, h, i], order).unwrap();
            self.assert_row("gated attention", [h, i], o, &want, naive, 4.0 * ULP);
        }
    }

    fn assert_linear_attention(&self, config: LinearAttentionConfig, o: &[f32], rows: &[[usize; 2]]) {
        use linear_attention::reference::{HostInputs, linear_attention_row};
        // elu + 1 of q and of k, a division, and sums over the features.
        let floor = ULP * (2.0 * (3.0 + 2.0 * 4.0) + 2.0 + (self.q.shape[3] as f64).sqrt());
        for &[h, i] in rows {
            // The twin maps all keys it is given for one row: no more than the row sees.
            let tokens = if config.mode == LinearMode::Causal { i + 1 } else { self.k.shape[2] };
            let head = |tensor: &Tensor<4>| {
                let [_, _, len, dim] = tensor.shape;
                let data = tensor.data[h * len * dim..][..tokens * dim].to_vec();
                Tensor { data, shape: [1, 1, tokens, dim] }
            };
            let [q, k, v] = [&self.q, &self.k, &self.v].map(head);
            let inputs = HostInputs::new(q.view(), k.view(), v.view());
            let want = linear_attention_row::<f64>(&config, &inputs, [0, 0, i], SumOrder::InOrder).unwrap();
            let naive = |order| linear_attention_row::<f32>(&config, &inputs, [0, 0, i], order).unwrap();
            self.assert_row("linear attention", [h, i], o, &want, naive, floor);
        }
    }

    fn assert_row(
        &self,
        op: &str,
        [h, i]: [usize; 2],
        o: &[f32],
        want: &[f64],
        naive: impl Fn(SumOrder) -> Vec<f32>,
        floor: f64,
    ) {
        assert!(o.iter().all(|x| x.is_finite()), "{op}: every row is written");
        let case = format!("{op}: q {:?}, k {:?}, row [{h}, {i}]", self.q.shape, self.k.shape);
        let naive: Vec<_> = (0..NAIVE_RUNS).map(|seed| naive(SumOrder::Shuffled(seed))).collect();
        let row = (h * self.q.shape[2] + i) * want.len();
        Expected { case: &case, name: "o", shape: &[want.len()], want, naive: &naive, floor, absolute_floor: 0.0 }
            .assert(&o[row..row + want.len()]);
    }
}

#[test]
fn softmax_over_65536_keys() {
    let n = 65536;
    let few = Operands::new(2, 3, n, 64);
    let config = AttentionConfig::new().causal(Causal::BottomRight).scale(Scale::LOG_N);
    few.assert_attention(config, &few.attention(context(), config), &[[0, 0], [1, 2]]);
    // Every row, each with its own keys.
    let all = Operands::new(1, n, n, 16);
    let config = config.window(Some(99), None);
    let rows = [0, 99, 100, 32767, 32768, n - 1].map(|i| [0, i]);
    all.assert_attention(config, &all.attention(context(), config), &rows);
}

#[test]
fn linear_attention_over_262144_tokens() {
    let n = 262_144;
    let operands = Operands::new(1, n, n, 16);
    let causal = LinearAttentionConfig::new().mode(LinearMode::Causal);
    let (o, _) = operands.linear_attention(context(), causal);
    operands.assert_linear_attention(causal, &o, &[[0, 1], [0, 65_536], [0, n - 1]]);
    let full = causal.mode(LinearMode::Full);
    let (o, _) = operands.linear_attention(context(), full);
    operands.assert_linear_attention(full, &o, &[[0, n - 1]]);
}

/// One workgroup a head at least, and more heads than a default device lets stand in a row.
const HEADS: usize = 66_000;

fn default_device() -> Context {
    let context = device_with(wgpu::Limits::default()).expect("a device with default limits");
    let widest = context.device().limits().max_compute_workgroups_per_dimension as usize;
    assert!(widest < HEADS, "the device would take {widest} workgroups in a row");
    context
}

/// Of the first row of the grid and the second.
const FOLDED: [[usize; 2]; 5] = [[0, 0], [65_534, 0], [65_535, 0], [65_536, 0], [HEADS - 1, 0]];

#[test]
fn attention_past_65535_workgroups() {
    let operands = Operands::new(HEADS, 1, 3, 4);
    let config = AttentionConfig::new();
    operands.assert_attention(config, &operands.attention(&default_device(), config), &FOLDED);
}

#[test]
fn gated_attention_past_65535_workgroups() {
    let operands = Operands::new(HEADS, 1, 3, 4);
    let config = GatedAttentionConfig::new();
    operands.assert_gated_attention(config, &operands.gated_attention(&default_device(), config), &FOLDED);
}

#[test]
fn linear_attention_past_65535_workgroups() {
    let device = default_device();
    for (mode, len) in [(LinearMode::Full, 2), (LinearMode::Causal, 2), (LinearMode::Causal, 1)] {
        let operands = Operands::new(HEADS, len, len, 4);
        let config = LinearAttentionConfig::new().mode(mode);
        operands.assert_linear_attention(config, &operands.linear_attention(&device, config).0, &FOLDED);
    }
}

#[test]
fn matmul_past_65535_workgroups() {
    use matmul::reference::{HostInputs, matmul_row};
    let context = default_device();
    let [a, b] = [(1, [1, HEADS, 2, 3]), (2, [1, HEADS, 3, 2])].map(|(seed, shape)| Tensor::normal(seed, shape));
    let [placed_a, placed_b] = [&a, &b].map(|tensor| Placed::input(&context, tensor, Placement::Aligned));
    let c = Placed::output(&context, [1, HEADS, 2, 2], Placement::Aligned);
    let config = MatMulConfig::new();
    let op = MatMul::new(&context, config).unwrap();
    let inputs = MatMulInputs::new(placed_a.view(), placed_b.view());
    context.run(&op.prepare(inputs, MatMulOutputs { c: c.view() }).unwrap()).unwrap();
    let got = c.read(&context, "c");
    assert!(got.iter().all(|x| x.is_finite()), "every row is written");
    let inputs = HostInputs::new(a.view(), b.view());
    for [h, i] in FOLDED {
        let want = matmul_row::<f64>(&config, &inputs, [0, h, i], SumOrder::InOrder).unwrap();
        for (c, want) in want.iter().enumerate() {
            let got = f64::from(got[4 * h + 2 * i + c]);
            // Three products of numbers below 6, each rounded, and two sums.
            assert!((got - want).abs() <= 5.0 * 108.0 * ULP, "head {h}, row {i}: got {got}, want {want}");
        }
    }
}

/// The other ops' tests have the same for theirs.
#[test]
fn linear_attention_is_cut_by_a_low_bound() {
    let options =
        ContextOptions { max_flops_per_dispatch: 1 << 16, assume_gpu: by_a_gpus_kernels(), ..Default::default() };
    let low = Context::with_options(context().device().clone(), context().queue().clone(), options);
    // From eight heads on llvmpipe keeps their states in registers in full mode too.
    for heads in [3, 8] {
        let operands = Operands::new(heads, 300, 300, 12);
        for mode in [LinearMode::Causal, LinearMode::Full] {
            let config = LinearAttentionConfig::new().mode(mode);
            let [(whole, few), (cut, many)] =
                [context(), &low].map(|context| operands.linear_attention(context, config));
            assert!(many > few + 2, "{mode:?}: {many} dispatches, {few} without a bound");
            assert_same_bits(&format!("{heads} heads, {mode:?}"), &whole, &cut);
        }
    }
}
