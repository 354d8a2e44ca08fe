//! A request, whatever op it names, and its run on the GPU: all by the op's table of operands.

#[path = "axes.rs"]
mod axes;
#[path = "json.rs"]
pub mod json;
#[path = "tensors.rs"]
mod tensors;

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use axes::{Axes, reordered, strides, swap};
use safetensors::tensor::TensorView as Stored;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tensors::{Tensors, elements, expect_room};
use wgpu_attention::op::{Access, AnyView, Kind, Op as Table, Operand};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::wgpu::{self, ErrorFilter};
use wgpu_attention::{Context, DType};

/// One output by its field name, as the file is to have it.
pub struct Output<T> {
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub data: Vec<T>,
    /// What the call wrote; a twin computes in its own type.
    pub dtype: DType,
}

/// What came out of a call on the GPU.
pub struct Run {
    pub kernel: String,
    /// Numbers of every type, each exactly.
    pub outputs: Vec<Output<f64>>,
}

/// A config and the inputs of one op.
pub struct Call<O: Table> {
    config: O::Config,
    tensors: Tensors,
    axes: Axes,
}

macro_rules! ops {
    ($($op:ident: $Op:ident($_Config:ident, $_Shapes:ident),)*) => {
        /// An op with its config and inputs.
        pub enum Op {
            $($Op(Box<Call<wgpu_attention::$Op>>)),*
        }

        impl Op {
            fn new<'a>(
                stem: &str,
                metadata: &HashMap<String, String>,
                tensors: impl IntoIterator<Item = (String, Stored<'a>)>,
            ) -> Result<Self> {
                match stem {
                    $(stringify!($op) => Ok(Self::$Op(Box::new(Call::new(metadata, tensors)?))),)*
                    _ => match (stem.strip_suffix("_backward"), [$(stringify!($op)),*]) {
                        (Some(op), all) if all.contains(&op) => bail!("metadata: pass: {op} has no backward pass"),
                        (_, all) => bail!("metadata: op: expected one of {}; got {stem}", forward(&all).join(", ")),
                    },
                }
            }

            pub fn stem(&self) -> &'static str {
                match self {
                    $(Self::$Op(_) => stringify!($op)),*
                }
            }

            /// The config as JSON, defaults filled in.
            pub fn config(&self) -> Result<String> {
                match self {
                    $(Self::$Op(call) => Ok(serde_json::to_string(&call.config)?)),*
                }
            }

            /// Whether products are of factors rounded to f16.
            pub fn takes_factors_in_f16(&self) -> Result<bool> {
                match self {
                    $(Self::$Op(call) => Ok(serde_json::to_value(&call.config)?["matrices"] == "f16")),*
                }
            }

            /// The inputs that were rounded from F64.
            pub fn rounded(&self) -> Vec<&'static str> {
                match self {
                    $(Self::$Op(call) => call.tensors.rounded()),*
                }
            }

            /// All outputs by the CPU twin.
            pub fn twin<T: Real>(&self, order: SumOrder) -> Result<Vec<Output<T>>> {
                match self {
                    $(Self::$Op(call) => call.twin(order)),*
                }
            }

            fn run(&self, context: &Context, request: &Request) -> Result<Run> {
                match self {
                    $(Self::$Op(call) => call.run(context, request)),*
                }
            }
        }
    };
}
wgpu_attention::for_all_ops!(ops);

/// The ops without their backward passes.
fn forward<'a>(all: &[&'a str]) -> Vec<&'a str> {
    all.iter().copied().filter(|op| !op.ends_with("_backward")).collect()
}

/// An op, the outputs wanted of it, and what the first of them is stored as.
pub struct Request {
    pub op: Op,
    wanted: Option<Vec<String>>,
    output_dtype: DType,
    /// In what layout outputs are, if that was asked for.
    pub layout: Option<String>,
}

/// What a file's metadata may say.
const KEYS: [&str; 7] = ["op", "pass", "config", "outputs", "output_dtype", "layout", "transpose"];

impl Request {
    /// Reads [`KEYS`] from a file's metadata, which has no others; every tensor must be one of the op's inputs.
    pub fn new<'a>(
        metadata: &HashMap<String, String>,
        tensors: impl IntoIterator<Item = (String, Stored<'a>)>,
    ) -> Result<Self> {
        if let Some(key) = metadata.keys().filter(|key| !KEYS.contains(&key.as_str())).min() {
            bail!("metadata: unknown key {key}; there are {}", KEYS.join(", "));
        }
        let stem = metadata.get("op").context("metadata: op is missing")?;
        let op = match metadata.get("pass").map_or("forward", String::as_str) {
            "forward" if stem.ends_with("_backward") => bail!("metadata: op: {stem} is a pass, not an op"),
            "forward" => Op::new(stem, metadata, tensors)?,
            "backward" => Op::new(&format!("{stem}_backward"), metadata, tensors)?,
            pass => bail!("metadata: pass: expected forward or backward; got {pass}"),
        };
        let names =
            |list: &String| list.split(',').map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        let output_dtype = output_dtype(metadata.get("output_dtype").map_or("F32", String::as_str))?;
        let layout = metadata.get("layout").cloned();
        Ok(Self { op, wanted: metadata.get("outputs").map(names), output_dtype, layout })
    }

    /// Runs the op on the GPU.
    pub fn run(&self, context: &Context) -> Result<Run> {
        let device = context.device();
        let memory = device.push_error_scope(ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(ErrorFilter::Validation);
        let done = self.op.run(context, self);
        let errors = [pollster::block_on(validation.pop()), pollster::block_on(memory.pop())];
        let done = done?;
        match errors.into_iter().flatten().next() {
            Some(error) => bail!("{error}"),
            None => Ok(done),
        }
    }
}

fn output_dtype(name: &str) -> Result<DType> {
    match name {
        "F32" => Ok(DType::F32),
        "F16" => Ok(DType::F16),
        "BF16" => Ok(DType::BF16),
        _ => bail!("metadata: output_dtype: expected F32, F16 or BF16; got {name}"),
    }
}

/// An output on the GPU.
struct Buffer {
    row: &'static Operand,
    /// By the axes of the table.
    shape: Vec<u32>,
    /// Axes that lie in memory, as in the file, in the other order.
    swapped: Option<[usize; 2]>,
    dtype: DType,
    /// Elements from one row to the next: rows of halves start at a word.
    width: u32,
    buffer: wgpu::Buffer,
}

impl Buffer {
    fn new(
        context: &Context,
        row: &'static Operand,
        shape: Vec<u32>,
        swapped: Option<[usize; 2]>,
        dtype: DType,
    ) -> Result<Self> {
        let per_word = (4 / dtype.size()) as u32;
        let (outer, inner) = shape.split_at(shape.len() - 1);
        let width = inner[0].next_multiple_of(per_word);
        let words = elements(outer.iter().chain([&(width / per_word)]).map(|&extent| extent.into()));
        expect_room(context, row.name, words.saturating_mul(4))?;
        Ok(Self { row, shape, swapped, dtype, width, buffer: context.allocate(words as usize) })
    }

    fn view(&self) -> Result<AnyView<'_>> {
        let mut extents: Vec<u64> = self.shape.iter().map(|&extent| extent.into()).collect();
        *extents.last_mut().context("an output has an axis")? = self.width.into();
        Ok(AnyView::new(&self.buffer, self.dtype, &self.shape, &strides(&extents, self.swapped))?)
    }

    fn read(&self, context: &Context) -> Result<Output<f64>> {
        let mut shape: Vec<usize> = self.shape.iter().map(|&extent| extent as usize).collect();
        swap(&mut shape, self.swapped);
        let mut data: Vec<f64> = match self.dtype {
            DType::U32 => context.download_u32(&self.buffer)?.into_iter().map(f64::from).collect(),
            _ => context.download_as(&self.buffer, self.dtype)?.into_iter().map(f64::from).collect(),
        };
        let (inner, width) = (shape[shape.len() - 1], self.width as usize);
        if inner < width {
            data = data.chunks(width).flat_map(|row| &row[..inner.min(row.len())]).copied().collect();
        }
        // A buffer has room for one word even where the tensor is empty.
        data.truncate(shape.iter().product());
        Ok(Output { name: self.row.name, shape, data, dtype: self.dtype })
    }
}

impl<O: Table> Call<O>
where
    O::Config: Serialize + DeserializeOwned + Clone,
{
    fn new<'a>(
        metadata: &HashMap<String, String>,
        tensors: impl IntoIterator<Item = (String, Stored<'a>)>,
    ) -> Result<Self> {
        let config = metadata.get("config").map_or("{}", String::as_str);
        json::check_config(config).context("metadata: config")?;
        let config = serde_json::from_str(config).context("metadata: config")?;
        let axes = Axes::new::<O>(metadata)?;
        Ok(Self { config, tensors: Tensors::new::<O>(tensors, &axes)?, axes })
    }

    fn shapes(&self) -> Result<O::Shapes> {
        Ok(O::shapes_of(&self.config, &self.tensors.extents())?)
    }

    fn twin<T: Real>(&self, order: SumOrder) -> Result<Vec<Output<T>>> {
        let shapes = self.shapes()?;
        let outputs = O::twin(&self.config, &&self.tensors, order)?.into_iter().map(|(name, data)| {
            let row = O::operands().iter().find(|row| row.name == name && row.access == Access::Write);
            let row = row.with_context(|| format!("{name} is no output"))?;
            let extents = O::extents(&self.config, &shapes, row).into_iter();
            let (mut shape, swapped) =
                (extents.map(|extent| extent as usize).collect::<Vec<_>>(), self.axes.swapped(row));
            let data = reordered(data, &shape, swapped);
            swap(&mut shape, swapped);
            Ok(Output { name, shape, data, dtype: DType::F32 })
        });
        outputs.collect()
    }

    /// The outputs of this call: all that it may have, or those that are wanted.
    fn outputs(&self, wanted: Option<&Vec<String>>) -> Result<Vec<&'static Operand>> {
        let inputs = self.tensors.names();
        let rows = O::operands().iter().filter(|row| row.access == Access::Write);
        let mut rows: Vec<_> = rows.filter(|row| !row.optional || O::takes(&self.config, &inputs, row)).collect();
        if let Some(wanted) = wanted {
            if let Some(name) = wanted.iter().find(|name| !rows.iter().any(|row| row.name == **name)) {
                bail!("metadata: outputs: {} has no output {name}", O::NAME);
            }
            rows.retain(|row| !row.optional || wanted.iter().any(|name| name == row.name));
        }
        Ok(rows)
    }

    fn run(&self, context: &Context, request: &Request) -> Result<Run> {
        let shapes = self.shapes()?;
        let mut outputs = Vec::new();
        for row in self.outputs(request.wanted.as_ref())? {
            let main = !row.optional && row.kind == Kind::Float;
            let dtype = match row.kind {
                Kind::Index => DType::U32,
                _ if main => request.output_dtype,
                _ => DType::F32,
            };
            let (shape, swapped) = (O::extents(&self.config, &shapes, row), self.axes.swapped(row));
            let output = Buffer::new(context, row, shape, swapped, dtype)?;
            // What it holds before the call, if anything.
            if let Some(held) = self.tensors.get(row.name).filter(|tensor| tensor.row.held) {
                let bytes: Vec<u8> = held.floats().iter().flat_map(|x| x.to_le_bytes()).collect();
                context.queue().write_buffer(&output.buffer, 0, &bytes);
            }
            outputs.push(output);
        }
        let uploaded = self.tensors.inputs().map(|tensor| Ok((tensor, tensor.upload(context)?)));
        let uploaded = uploaded.collect::<Result<Vec<_>>>()?;
        let mut views = Vec::new();
        for (tensor, buffer) in &uploaded {
            views.push((tensor.row.name, Access::Read, tensor.view(buffer)?));
        }
        for output in &outputs {
            views.push((output.row.name, Access::Write, output.view()?));
        }
        let op = O::create(context, self.config.clone())?;
        let prepared = op.prepare_by_name(&views)?;
        context.run(&prepared)?;
        let read = outputs.iter().map(|output| output.read(context));
        Ok(Run { kernel: prepared.plan().kernel(), outputs: read.collect::<Result<_>>()? })
    }
}
