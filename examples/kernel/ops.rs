//! The plan of a call, whatever op it names, by sizes alone.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use wgpu_attention::op::Op;
use wgpu_attention::{
    Attention, AttentionShapes, Context, DType, GatedAttention, GatedAttentionShapes, LinearAttention,
    LinearAttentionShapes, MatMul, MatMulShapes, Merge, MergeShapes, Plan,
};

/// A config and sizes, as JSON with every default filled in, and the op that they are of.
pub struct Call {
    pub config: String,
    pub shapes: String,
    plan: Box<Planning>,
}

type Planning = dyn Fn(&Context, DType) -> Result<Arc<Plan>>;

macro_rules! ops {
    ($($Op:ident: $usual:expr;)*) => {
        pub const NAMES: &[&str] = &[$($Op::NAME),*];

        impl Call {
            pub fn new(op: &str, config: &str, shapes: &str) -> Result<Self> {
                match op {
                    $($Op::NAME => Self::of::<$Op>(config, &$usual, shapes),)*
                    _ => bail!("op: expected one of {}; got {op}", NAMES.join(", ")),
                }
            }
        }
    };
}
// Each with the sizes of a usual call: 4096 tokens of 8 heads, 64 wide. What the caller says changes them.
ops! {
    Attention: AttentionShapes::new(1, 8, 4096, 64);
    GatedAttention: GatedAttentionShapes::new(1, 8, 4096, 64, 64);
    LinearAttention: LinearAttentionShapes::new(1, 8, 4096, 64);
    MatMul: MatMulShapes::new(4096, 8 * 64, 8 * 64);
    Merge: MergeShapes::new(2, 1, 8, 4096, 64);
}

impl Call {
    fn of<O: Op>(config: &str, usual: &O::Shapes, shapes: &str) -> Result<Self>
    where
        O::Config: Serialize + DeserializeOwned + Clone + 'static,
        O::Shapes: Serialize + DeserializeOwned + 'static,
    {
        let config: O::Config = serde_json::from_str(config).context("config")?;
        let shapes: O::Shapes = changed(usual, shapes).context("shapes")?;
        Ok(Self {
            config: serde_json::to_string(&config)?,
            shapes: serde_json::to_string(&shapes)?,
            plan: Box::new(move |context, dtype| {
                Ok(O::create(context, config.clone())?.plan_by_shapes(&shapes, dtype)?)
            }),
        })
    }

    pub fn plan(&self, context: &Context, dtype: DType) -> Result<Arc<Plan>> {
        (self.plan)(context, dtype)
    }
}

/// Sizes with the fields that an object names as it has them.
fn changed<S: Serialize + DeserializeOwned>(usual: &S, fields: &str) -> Result<S> {
    let fields: Map<String, Value> = serde_json::from_str(fields)?;
    let mut all = serde_json::to_value(usual)?;
    all.as_object_mut().context("no object")?.extend(fields);
    Ok(serde_json::from_value(all)?)
}
