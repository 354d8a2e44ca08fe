//! The plan of a call, whatever op it names, by sizes alone.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use wgpu_attention::op::{Access, Op};
use wgpu_attention::{Context, DType, Plan};

/// A config and sizes, as JSON with every default filled in, and the op that they are of.
pub struct Call {
    pub config: String,
    pub shapes: String,
    plan: Box<Planning>,
}

type Planning = dyn Fn(&Context, DType) -> Result<Arc<Plan>>;

macro_rules! ops {
    ($($op:ident: $Op:ident($_Config:ident, $_Shapes:ident),)*) => {
        pub const NAMES: &[&str] = &[$(stringify!($op)),*];

        impl Call {
            pub fn new(op: &str, config: &str, shapes: &str) -> Result<Self> {
                match op {
                    $(stringify!($op) => Self::of::<wgpu_attention::$Op>(config, shapes),)*
                    _ => bail!("op: expected one of {}; got {op}", NAMES.join(", ")),
                }
            }
        }
    };
}
wgpu_attention::for_all_ops!(ops);

/// The size of an axis in a usual call: 4096 tokens of 8 heads, 64 wide; 4096 rows of 4096 columns. What the caller says changes it.
fn usual(axis: &str) -> u32 {
    match axis {
        "batch" => 1,
        "parts" => 2,
        "m" | "rows" => 4096,
        "class_rows" | "classes" | "thresholds" => 1000,
        "n" | "k" => 512,
        "columns" => 4096,
        "taus" | "scales" | "alphas" => 1,
        axis if axis == "heads" || axis.ends_with("_heads") => 8,
        axis if axis == "len" || axis.ends_with("_len") => 4096,
        _ => 64,
    }
}

impl Call {
    fn of<O: Op>(config: &str, shapes: &str) -> Result<Self>
    where
        O::Config: Serialize + DeserializeOwned + Clone + 'static,
        O::Shapes: Default + Serialize + DeserializeOwned + 'static,
    {
        let config: O::Config = serde_json::from_str(config).context("config")?;
        let shapes: O::Shapes = sizes(shapes, &gradients::<O>(&config)).context("shapes")?;
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

/// The gradients that a backward pass takes and gives where nothing else is optional: without any, there is none.
fn gradients<O: Op>(config: &O::Config) -> Vec<&'static str> {
    let of_backward = O::operands().iter().filter(|_| O::NAME.ends_with("_backward"));
    let optional: Vec<_> = of_backward.filter(|row| row.optional && row.name.starts_with('d')).collect();
    let inputs = O::operands().iter().filter(|row| row.access == Access::Read && !row.optional);
    let inputs: Vec<_> = inputs.chain(optional.iter().copied()).map(|row| row.name).collect();
    optional.into_iter().filter(|row| O::takes(config, &inputs, row)).map(|row| row.name).collect()
}

/// The sizes of a usual call, with these operands, and with the fields that an object names as it has them.
fn sizes<S: Default + Serialize + DeserializeOwned>(fields: &str, given: &[&str]) -> Result<S> {
    let fields: Map<String, Value> = serde_json::from_str(fields)?;
    let mut all = serde_json::to_value(S::default())?;
    let all_fields = all.as_object_mut().context("no object")?;
    all_fields.iter_mut().filter(|(_, value)| value.is_number()).for_each(|(axis, value)| *value = usual(axis).into());
    all_fields
        .iter_mut()
        .filter(|(name, _)| given.contains(&name.as_str()))
        .for_each(|(_, value)| *value = true.into());
    all_fields.extend(fields);
    Ok(serde_json::from_value(all)?)
}
