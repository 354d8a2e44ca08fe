//! A case on the GPU, and its gradients beside the twin's.

use std::collections::{BTreeMap, BTreeSet};

use wgpu_attention::op::{Access, AnyView, Op};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{Context, DType, Divisor, Error, GatedAttentionBackward, GauWeights};

use super::case::{Case, MAPS};
use crate::common::{Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, context, rounding};

/// Gradients by name.
pub type Back = BTreeMap<&'static str, Vec<f32>>;

fn most_of(numbers: &[f64]) -> f64 {
    numbers.iter().fold(0.0_f64, |most, x| most.max(x.abs()))
}

/// As the op has it: maps have two axes.
fn view<'a>(name: &str, placed: &'a Placed) -> AnyView<'a> {
    let is_map = MAPS.iter().any(|map| name.ends_with(map));
    if is_map { placed.matrix_view().into() } else { placed.view().into() }
}

impl Case {
    fn stored_as(&self, name: &str) -> DType {
        self.stored.get(name).copied().unwrap_or(DType::F32)
    }

    /// The gradients that it can have.
    pub fn gradients(&self) -> BTreeSet<&'static str> {
        let all = GatedAttentionBackward::operands().iter().filter(|row| row.access == Access::Write);
        all.map(|row| row.name).filter(|name| self.tensors.contains_key(&name[1..])).collect()
    }

    pub fn try_run(
        &self,
        context: &Context,
        placement: Placement,
        wanted: &BTreeSet<&'static str>,
    ) -> Result<Back, Error> {
        self.try_run_with(&self.o(), context, placement, wanted)
    }

    /// What forward leaves.
    fn o(&self) -> Tensor<4> {
        let forward = self.forward().iter().map(|x| *x as f32).collect();
        Tensor { data: forward, shape: self.tensors["dout"].shape }
    }

    /// The same call on each, with outputs of its own each time.
    pub fn runs<'c>(&self, contexts: impl IntoIterator<Item = &'c Context>) -> Vec<Back> {
        let (o, wanted) = (self.o(), self.gradients());
        let run = |context| self.try_run_with(&o, context, Placement::Aligned, &wanted);
        let named = |error| panic!("{}: {error}", self.name());
        contexts.into_iter().map(|context| run(context).unwrap_or_else(named)).collect()
    }

    fn try_run_with(
        &self,
        o: &Tensor<4>,
        context: &Context,
        placement: Placement,
        wanted: &BTreeSet<&'static str>,
    ) -> Result<Back, Error> {
        let inputs = self.tensors.iter().map(|(name, tensor)| (*name, tensor)).chain([("o", o)]);
        let inputs: Vec<_> = inputs
            .map(|(name, tensor)| (name, Placed::input_as(context, tensor, placement, self.stored_as(name))))
            .collect();
        let outputs: Vec<_> = wanted
            .iter()
            .map(|name| {
                let shape = self.tensors[&name[1..]].shape;
                (*name, Placed::output_as(context, shape, placement, self.stored_as(name)))
            })
            .collect();
        let lens = self.kv_lens.as_ref().map(|lens| context.upload(lens));
        let mut tensors: Vec<(&str, Access, AnyView<'_>)> = Vec::new();
        tensors.extend(inputs.iter().map(|(name, placed)| (*name, Access::Read, view(name, placed))));
        tensors.extend(outputs.iter().map(|(name, placed)| (*name, Access::Write, view(name, placed))));
        if let (Some(buffer), Some(lens)) = (&lens, &self.kv_lens) {
            let view = wgpu_attention::TensorView::new(buffer, DType::U32, [lens.len() as u32]);
            tensors.push(("kv_lens", Access::Read, view.into()));
        }
        let op = GatedAttentionBackward::new(context, self.config)?;
        let prepared = op.prepare_by_name(&tensors)?;
        context.run(&prepared)?;
        Ok(outputs.iter().map(|(name, placed)| (*name, placed.read(context, name))).collect())
    }

    pub fn run(&self, context: &Context, placement: Placement) -> Back {
        self.try_run(context, placement, &self.gradients()).unwrap_or_else(|error| panic!("{}: {error}", self.name()))
    }

    pub fn assert(&self, what: &str, back: &Back) {
        self.assert_each([(what.to_string(), back.clone())]);
    }

    /// Gradients by what they are, beside those of one twin.
    pub fn assert_each(&self, backs: impl IntoIterator<Item = (String, Back)>) {
        let naive: Vec<_> = (0..NAIVE_RUNS).map(|seed| self.twin::<f32>(SumOrder::Shuffled(seed))).collect();
        let (truth, cancelling) = (self.twin::<f64>(SumOrder::InOrder), self.cancelling());
        for (what, back) in backs {
            let case = format!("{what}: {}", self.name());
            for (at, (name, want)) in truth.iter().enumerate() {
                let Some(got) = back.get(name) else { continue };
                let naive: Vec<_> = naive.iter().map(|run| run[at].1.clone()).collect();
                let (relative, absolute_floor) = rounding(self.stored_as(name));
                let floor = self.floor() * ULP + relative;
                let expected = Expected {
                    case: &case,
                    name,
                    shape: &self.tensors[&name[1..]].shape,
                    want,
                    naive: &naive,
                    floor,
                    absolute_floor: absolute_floor + cancelling.get(name).copied().unwrap_or(0.0),
                };
                expected.assert_gradient(got);
            }
        }
    }

    /// As of forward, in ulp: relu² divides once, or carries a scale twice; a softmax's exponential is off by (3 + 2|x|), after a
    /// division, a scale, and a logarithm in it. Each gradient takes the weight and, but for that of values, one rounding more.
    fn floor(&self) -> f64 {
        let logs = (self.tensors["v"].shape[2].max(1) as f64).ln();
        match self.config.weights {
            GauWeights::SquaredRelu(_) => 8.0,
            GauWeights::Softmax => 8.0 + 2.0 * logs,
            GauWeights::SoftmaxLogN { .. } => 8.0 + 2.0 * logs + 6.0 * self.largest_score(),
        }
    }

    /// What is left where weights add up to one and dA and δ cancel, as in a row with one key, where a naive run leaves nothing: δ is off
    /// by 4 ulp of its terms and what o was stored with, dA by as much.
    fn cancelling(&self) -> BTreeMap<&'static str, f64> {
        let adds_up = match self.config.weights {
            GauWeights::SquaredRelu(divisor) => matches!(divisor, Divisor::RowSum { .. }),
            GauWeights::Softmax | GauWeights::SoftmaxLogN { .. } => true,
        };
        if !adds_up {
            return BTreeMap::new();
        }
        // The weights: values of ones and zeros.
        let [batch, heads, q_len, v_dim] = self.tensors["dout"].shape;
        let [_, kv_heads, kv_len, _] = self.tensors["v"].shape;
        let mut ones = self.clone();
        let v = ones.get_mut("v");
        *v = Tensor::filled(0.0, [batch, kv_heads, kv_len, kv_len]);
        (0..batch * kv_heads * kv_len).for_each(|row| v.data[row * kv_len + row % kv_len] = 1.0);
        ones.tensors.remove("u");
        let weights = ones.forward();

        let (mut dq, mut dk) = (0.0_f64, vec![0.0_f64; batch * kv_heads * kv_len]);
        let largest = |name: &str| {
            self.tensors
                .get(name)
                .map_or(0.0, |tensor| tensor.data.iter().fold(0.0_f64, |m, x| m.max(f64::from(x.abs()))))
        };
        let stored = rounding(self.stored_as("o")).0;
        for row in 0..batch * heads * q_len {
            let [b, h, i] = [row / q_len / heads, row / q_len % heads, row % q_len];
            let kv_head = h / (heads / kv_heads);
            let element = |name: &str, at: [usize; 4]| {
                self.tensors.get(name).map(|tensor| f64::from(tensor.view().get(at).expect("an element")))
            };
            let dout =
                |c: usize| element("dout", [b, h, i, c]).unwrap_or(0.0) * element("u", [b, h, i, c]).unwrap_or(1.0);
            let terms: f64 = (0..v_dim).map(|c| dout(c).abs()).sum::<f64>() * largest("v");
            let off = (8.0 * ULP + stored) * terms;
            let side = |side: &str, head: usize, j: usize| -> Vec<f64> {
                let key_dim = self.tensors.get("z").or(self.tensors.get("q")).expect("either").shape[3];
                let map = |name: String, c: usize| {
                    self.tensors.get(name.as_str()).map(|map| f64::from(map.data[head % map.shape[2] * key_dim + c]))
                };
                let of = |c: usize| {
                    element(side, [b, head, j, c]).unwrap_or_else(|| {
                        let z = element("z", [b, head, j, c]).expect("z");
                        z * map(format!("gamma_{side}"), c).expect("a map")
                            + map(format!("beta_{side}"), c).unwrap_or(0.0)
                    })
                };
                (0..key_dim).map(of).collect()
            };
            let q = side("q", h, i);
            let mut sum = 0.0;
            for j in 0..kv_len {
                let weight = weights[row * kv_len + j];
                if weight == 0.0 {
                    continue;
                }
                let k = side("k", kv_head, j);
                let dot: f64 = q.iter().zip(&k).map(|(q, k)| q * k).sum();
                let slope = match self.config.weights {
                    GauWeights::SquaredRelu(_) => 2.0 * weight / dot,
                    _ => weight * self.scale(kv_len) / (q.len() as f64).sqrt(),
                };
                sum += slope * most_of(&k);
                dk[(b * kv_heads + kv_head) * kv_len + j] += off * slope * most_of(&q);
            }
            dq = dq.max(off * sum);
        }
        let dk = most_of(&dk);
        let mut floors: BTreeMap<&'static str, f64> = [("dq", dq), ("dk", dk)].into();
        floors.insert("dz", largest("gamma_q") * dq + largest("gamma_k") * dk);
        // Over many rows, of either sign.
        let rows = ((batch * heads * q_len) as f64).sqrt();
        for (name, own, factor) in
            [("dgamma_q", dq, largest("z")), ("dbeta_q", dq, 1.0), ("dgamma_k", dk, largest("z")), ("dbeta_k", dk, 1.0)]
        {
            floors.insert(name, rows * own * factor);
        }
        floors
    }

    /// What a scale that grows with log n has more than one that does not, at most.
    fn scale(&self, kv_len: usize) -> f64 {
        match self.config.weights {
            GauWeights::SoftmaxLogN { base, floor } => (kv_len.max(floor as usize) as f64).ln() / f64::from(base).ln(),
            _ => 1.0,
        }
    }

    /// A bound on |q·k| / √s.
    fn largest_score(&self) -> f64 {
        let largest = |name: &str| {
            self.tensors
                .get(name)
                .map_or(0.0, |tensor| tensor.data.iter().fold(0.0_f64, |m, x| m.max(f64::from(x.abs()))))
        };
        let of = |side: &str| {
            let mapped = largest("z") * largest(&format!("gamma_{side}")) + largest(&format!("beta_{side}"));
            largest(side).max(mapped)
        };
        let key_dim = self.tensors.get("z").or(self.tensors.get("q")).map_or(1, |tensor| tensor.shape[3]);
        of("q") * of("k") * (key_dim as f64).sqrt()
    }

    pub fn check_on(&self, context: &Context, what: &str) {
        self.assert(what, &self.run(context, Placement::Aligned));
    }

    pub fn check_own(&self, what: &str) {
        self.check_on(context(), what);
    }
}

pub fn assert_same(what: &str, a: &Back, b: &Back) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}");
    a.iter().for_each(|(name, got)| assert_same_bits(&format!("{what}: {name}"), got, &b[name]));
}
