//! A case on the GPU, and its gradients beside the twin's.

use std::collections::{BTreeMap, BTreeSet};

use wgpu_attention::op::{Access, AnyView, Op};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{Context, DType, Error, GatedAttentionBackward, GauWeights};

use super::case::{Case, MAPS};
use crate::common::{
    Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, context, own_and_any_gpu, rounding,
};

/// Gradients by name.
pub type Back = BTreeMap<&'static str, Vec<f32>>;

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
        let forward = self.forward().iter().map(|x| *x as f32).collect();
        let o = Tensor { data: forward, shape: self.tensors["dout"].shape };
        let inputs = self.tensors.iter().map(|(name, tensor)| (*name, tensor)).chain([("o", &o)]);
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
        let naive: Vec<_> = (0..NAIVE_RUNS).map(|seed| self.twin::<f32>(SumOrder::Shuffled(seed))).collect();
        let case = format!("{what}: {}", self.name());
        for (at, (name, want)) in self.twin::<f64>(SumOrder::InOrder).into_iter().enumerate() {
            let Some(got) = back.get(name) else { continue };
            let naive: Vec<_> = naive.iter().map(|run| run[at].1.clone()).collect();
            let (relative, absolute_floor) = rounding(self.stored_as(name));
            let largest = want.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
            let floor = self.floor() * ULP + relative;
            let expected = Expected {
                case: &case,
                name,
                shape: &self.tensors[&name[1..]].shape,
                want: &want,
                naive: &naive,
                floor,
                // What cancels in δ: o is rounded where forward stores it.
                absolute_floor: absolute_floor + rounding(self.stored_as("o")).0 * largest,
            };
            expected.assert_gradient(got);
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

    /// With forward's kernels for the adapter, and with those of any GPU.
    pub fn check(&self, what: &str) {
        for (kernels, context) in own_and_any_gpu() {
            self.check_on(context, &format!("{what}{kernels}"));
        }
    }
}

pub fn assert_same(what: &str, a: &Back, b: &Back) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}");
    a.iter().for_each(|(name, got)| assert_same_bits(&format!("{what}: {name}"), got, &b[name]));
}
