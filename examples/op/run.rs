//! Runs an op, on the GPU or in its CPU twin, on named tensors: what `op.rs` and the golden tests share.

mod attention;
mod gated_attention;
mod linear_attention;
mod matmul;
mod merge;
mod tensors;

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use safetensors::tensor::TensorView as Stored;
use tensors::{Tensor, Tensors};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::wgpu::{self, ErrorFilter};
use wgpu_attention::{Context, DType, HostView, Prepared, TensorView, Uploaded};

/// One output by its field name.
pub struct Output<T> {
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub data: Vec<T>,
    /// What the call wrote; a twin computes in its own type.
    pub dtype: DType,
}

impl<T> Output<T> {
    pub fn new(name: &'static str, shape: &[u32], data: Vec<T>) -> Self {
        Self { name, shape: shape.iter().map(|&extent| extent as usize).collect(), data, dtype: DType::F32 }
    }
}

/// What came out of a call on the GPU.
pub struct Run {
    pub kernel: String,
    pub outputs: Vec<Output<f32>>,
}

macro_rules! ops {
    ($($op:ident: $Op:ident),*) => {
        /// An op with its config and inputs.
        pub enum Op {
            $($Op(Box<$op::Call>)),*
        }

        impl Op {
            fn new(stem: &str, config: &str, tensors: &mut Tensors) -> Result<Self> {
                match stem {
                    $(stringify!($op) => Ok(Self::$Op(Box::new($op::Call::new(parse(config)?, tensors)?))),)*
                    _ => bail!("metadata: op: expected one of {}; got {stem}", [$(stringify!($op)),*].join(", ")),
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

            /// All outputs by the CPU twin.
            pub fn twin<T: Real>(&self, order: SumOrder) -> Result<Vec<Output<T>>> {
                match self {
                    $(Self::$Op(call) => call.twin(order)),*
                }
            }

            fn run(&self, gpu: &mut Gpu) -> Result<()> {
                match self {
                    $(Self::$Op(call) => call.run(gpu)),*
                }
            }
        }
    };
}
ops!(attention: Attention, gated_attention: GatedAttention, linear_attention: LinearAttention, matmul: MatMul, merge: Merge);

fn parse<C: serde::de::DeserializeOwned>(config: &str) -> Result<C> {
    serde_json::from_str(config).context("metadata: config")
}

/// An op, the outputs wanted of it, and what the first of them is stored as.
pub struct Request {
    pub op: Op,
    wanted: Option<Vec<String>>,
    output_dtype: DType,
}

impl Request {
    /// Reads `op`, `config`, `outputs` and `output_dtype` from a file's metadata; every tensor must be one of the op's inputs.
    pub fn new<'a>(
        metadata: &HashMap<String, String>,
        tensors: impl IntoIterator<Item = (String, Stored<'a>)>,
    ) -> Result<Self> {
        let mut tensors = Tensors::new(tensors);
        let stem = metadata.get("op").context("metadata: op is missing")?;
        let config = metadata.get("config").map_or("{}", String::as_str);
        let op = Op::new(stem, config, &mut tensors)?;
        tensors.finish(stem)?;
        let names =
            |list: &String| list.split(',').map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        let output_dtype = output_dtype(metadata.get("output_dtype").map_or("F32", String::as_str))?;
        Ok(Self { op, wanted: metadata.get("outputs").map(names), output_dtype })
    }

    /// Runs the op on the GPU.
    pub fn run(&self, context: &Context) -> Result<Run> {
        let device = context.device();
        let memory = device.push_error_scope(ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(ErrorFilter::Validation);
        let (wanted, output_dtype) = (self.wanted.clone(), self.output_dtype);
        let mut gpu = Gpu { context, wanted, output_dtype, kernel: String::new(), outputs: Vec::new() };
        let done = self.op.run(&mut gpu);
        let errors = [pollster::block_on(validation.pop()), pollster::block_on(memory.pop())];
        done?;
        if let Some(error) = errors.into_iter().flatten().next() {
            bail!("{error}");
        }
        if let Some(name) = gpu.wanted.iter().flatten().next() {
            bail!("metadata: outputs: {} has no output {name}", self.op.stem());
        }
        Ok(Run { kernel: gpu.kernel, outputs: gpu.outputs })
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

/// Where an op runs: allocates the outputs that are wanted, executes, reads them back.
pub struct Gpu<'a> {
    pub context: &'a Context,
    wanted: Option<Vec<String>>,
    output_dtype: DType,
    kernel: String,
    outputs: Vec<Output<f32>>,
}

/// An output on the GPU.
pub struct Buffer<const RANK: usize> {
    name: &'static str,
    shape: [u32; RANK],
    dtype: DType,
    /// Elements from one row to the next: rows of halves start at a word.
    row: u32,
    buffer: wgpu::Buffer,
}

impl<const RANK: usize> Buffer<RANK> {
    pub fn view(&self) -> TensorView<'_, RANK> {
        let mut strides = [1; RANK];
        for axis in (1..RANK).rev() {
            let extent = if axis == RANK - 1 { self.row } else { self.shape[axis] };
            strides[axis - 1] = strides[axis] * u64::from(extent);
        }
        TensorView::new(&self.buffer, self.dtype, self.shape).with_strides(strides)
    }
}

impl Gpu<'_> {
    /// An output that the op always writes.
    pub fn output<const RANK: usize>(&mut self, name: &'static str, shape: [u32; RANK]) -> Buffer<RANK> {
        self.output_as(name, shape, DType::F32)
    }

    /// The op's main output, stored as the file asks: f32 if it does not.
    pub fn main_output<const RANK: usize>(&mut self, name: &'static str, shape: [u32; RANK]) -> Buffer<RANK> {
        self.output_as(name, shape, self.output_dtype)
    }

    fn output_as<const RANK: usize>(&mut self, name: &'static str, shape: [u32; RANK], dtype: DType) -> Buffer<RANK> {
        if let Some(wanted) = &mut self.wanted {
            wanted.retain(|other| other != name);
        }
        let per_word = (4 / dtype.size()) as u32;
        let row = shape[RANK - 1].next_multiple_of(per_word);
        let elements: usize = shape[..RANK - 1].iter().chain([&row]).map(|&extent| extent as usize).product();
        Buffer { name, shape, dtype, row, buffer: self.context.allocate(elements / per_word as usize) }
    }

    /// A tensor in the type in which the file stores it.
    pub fn upload<const RANK: usize>(
        &self,
        view: HostView<'_, f32, RANK>,
        tensor: &Tensor<f32, RANK>,
    ) -> Result<Uploaded<RANK>> {
        Ok(self.context.upload_view_as(&view, tensor.dtype())?)
    }

    /// The same of one that may be absent.
    pub fn upload_if<const RANK: usize>(
        &self,
        view: Option<HostView<'_, f32, RANK>>,
        tensor: Option<&Tensor<f32, RANK>>,
    ) -> Result<Option<Uploaded<RANK>>> {
        view.zip(tensor).map(|(view, tensor)| self.upload(view, tensor)).transpose()
    }

    /// An output that the op writes if asked to.
    pub fn optional<const RANK: usize>(&mut self, name: &'static str, shape: [u32; RANK]) -> Option<Buffer<RANK>> {
        let wanted = self.wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|other| other == name));
        wanted.then(|| self.output(name, shape))
    }

    pub fn execute(&mut self, prepared: &Prepared) -> Result<()> {
        self.kernel = prepared.plan().kernel();
        Ok(self.context.run(prepared)?)
    }

    pub fn read<const RANK: usize>(&mut self, buffer: &Buffer<RANK>) -> Result<()> {
        let Buffer { name, shape, dtype, row, ref buffer } = *buffer;
        let mut data = self.context.download_as(buffer, dtype)?;
        let (width, row) = (shape[RANK - 1] as usize, row as usize);
        if width < row {
            data = data.chunks(row).flat_map(|row| &row[..width.min(row.len())]).copied().collect();
        }
        // A buffer has room for one word even where the tensor is empty.
        data.truncate(shape.iter().map(|&extent| extent as usize).product());
        self.outputs.push(Output { dtype, ..Output::new(name, &shape, data) });
        Ok(())
    }
}
