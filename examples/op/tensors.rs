//! The tensors of a safetensors file, each taken once by the row of an op's table that has its name, so that none is ignored.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail};
use safetensors::tensor::{Dtype, TensorView};
use wgpu_attention::half::{bf16, f16};
use wgpu_attention::op::{Access, AnyView, HostTensors, Kind, Op, Operand};
use wgpu_attention::{Context, DType, Error, HostView, wgpu};

use super::axes::{Axes, strides, swap};

/// A tensor of the file.
pub struct Tensor {
    pub row: &'static Operand,
    numbers: Numbers,
    /// What the file stores it as; of integers and masks, what the library does, and of F64 what that was rounded to.
    dtype: DType,
    rounded: bool,
    /// Axes that the file has in the other order.
    swapped: Option<[usize; 2]>,
    /// What the file has of each axis, outer ones that are missing as 1.
    stored: Vec<usize>,
    /// With axes of extent 1 repeated as far as other tensors have them.
    shape: Vec<usize>,
}

enum Numbers {
    Floats(Vec<f32>),
    Integers(Vec<u32>),
    Bytes(Vec<u8>),
}

/// The inputs of a call.
pub struct Tensors(Vec<Tensor>);

impl Tensors {
    /// Every input of the op that the file has; refuses what else it has.
    pub fn new<'a, O: Op>(named: impl IntoIterator<Item = (String, TensorView<'a>)>, axes: &Axes) -> Result<Self> {
        let mut left: BTreeMap<String, TensorView<'a>> = named.into_iter().collect();
        let inputs = || O::operands().iter().filter(|row| row.access == Access::Read || row.held);
        let mut tensors = Vec::new();
        for row in inputs() {
            match left.remove(row.name) {
                Some(tensor) => tensors.push(Tensor::new(row, &tensor, axes.swapped(row))?),
                None if !row.optional && row.access == Access::Read => {
                    return Err(Error::Operand { tensor: row.name, problem: "is missing".into() }.into());
                }
                None => {}
            }
        }
        if !left.is_empty() {
            let (names, inputs): (Vec<_>, Vec<_>) =
                (left.into_keys().collect(), inputs().map(|row| row.name).collect());
            bail!("{} with this config takes no tensor {}; it takes {}", O::NAME, names.join(", "), inputs.join(", "));
        }
        broadcast(&mut tensors);
        Ok(Self(tensors))
    }

    pub fn extents(&self) -> Vec<(&'static str, Vec<usize>)> {
        self.0.iter().map(|tensor| (tensor.row.name, tensor.shape.clone())).collect()
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|tensor| tensor.row.name).collect()
    }

    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|tensor| tensor.row.name == name)
    }

    /// The names of those that the file has in F64.
    pub fn rounded(&self) -> Vec<&'static str> {
        self.0.iter().filter(|tensor| tensor.rounded).map(|tensor| tensor.row.name).collect()
    }

    /// Those that the op only reads.
    pub fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter().filter(|tensor| tensor.row.access == Access::Read)
    }
}

/// Repeats axes of extent 1 where the op lets them stand for any extent.
fn broadcast(tensors: &mut [Tensor]) {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in tensors.iter() {
        for (axis, &extent) in tensor.stored.iter().enumerate().filter(|(_, extent)| **extent != 1) {
            for name in tensor.row.names(axis) {
                sizes.entry(name).or_insert(extent);
            }
        }
    }
    for tensor in tensors.iter_mut().filter(|tensor| tensor.row.broadcast) {
        // Matrices are repeated, and not what they consist of.
        let own = tensor.shape.len() - if tensor.row.either_order { 2 } else { 0 };
        for (axis, extent) in tensor.shape[..own].iter_mut().enumerate().filter(|(_, extent)| **extent == 1) {
            *extent = tensor.row.names(axis).find_map(|name| sizes.get(name)).copied().unwrap_or(1);
        }
        tensor.repeat_innermost();
    }
}

impl Tensor {
    fn new(row: &'static Operand, tensor: &TensorView, swapped: Option<[usize; 2]>) -> Result<Self> {
        let (rank, axes) = (row.rank(), tensor.shape().len());
        if axes > rank || (axes < rank && !row.broadcast) {
            let most = if row.broadcast { "at most " } else { "" };
            bail!("{}: expected {most}{rank} axes, got shape {:?}", row.name, tensor.shape());
        }
        let mut stored = vec![1; rank];
        stored[rank - axes..].copy_from_slice(tensor.shape());
        swap(&mut stored, swapped);
        let (numbers, dtype) = load(row, tensor).with_context(|| row.name.to_owned())?;
        let rounded = tensor.dtype() == Dtype::F64;
        Ok(Self { row, numbers, dtype, rounded, swapped, shape: stored.clone(), stored })
    }

    /// Kernels walk the innermost axis by a stride of 1, so that its one number has to stand there as often as it counts.
    fn repeat_innermost(&mut self) {
        fn repeated<T: Copy>(numbers: &[T], times: usize) -> Vec<T> {
            numbers.iter().flat_map(|&number| std::iter::repeat_n(number, times)).collect()
        }
        let inner = self.shape.len() - 1;
        let times = self.shape[inner];
        if self.stored[inner] == times {
            return;
        }
        self.stored[inner] = times;
        match &mut self.numbers {
            Numbers::Floats(numbers) => *numbers = repeated(numbers, times),
            Numbers::Integers(numbers) => *numbers = repeated(numbers, times),
            Numbers::Bytes(numbers) => *numbers = repeated(numbers, times),
        }
    }

    /// Its elements in the order of the file, if they are floats.
    pub fn floats(&self) -> &[f32] {
        if let Numbers::Floats(numbers) = &self.numbers { numbers } else { &[] }
    }

    /// On the GPU, in the type in which the file stores it.
    pub fn upload(&self, context: &Context) -> Result<wgpu::Buffer> {
        let count = elements(self.stored.iter().map(|&extent| extent as u64));
        expect_room(context, self.row.name, count.saturating_mul(self.dtype.size()))?;
        Ok(match &self.numbers {
            Numbers::Floats(numbers) if self.row.kind == Kind::Float => context.upload_as(numbers, self.dtype)?,
            Numbers::Floats(numbers) => context.upload(numbers),
            Numbers::Integers(numbers) => context.upload(numbers),
            Numbers::Bytes(numbers) => context.upload(numbers),
        })
    }

    pub fn view<'b>(&self, buffer: &'b wgpu::Buffer) -> Result<AnyView<'b>> {
        let dtype = if self.row.kind == Kind::Statistic { DType::F32 } else { self.dtype };
        let mut strides = strides(&self.stored.iter().map(|&extent| extent as u64).collect::<Vec<_>>(), self.swapped);
        for (axis, stride) in strides.iter_mut().enumerate() {
            // An axis that is repeated stays where it is.
            if self.stored[axis] != self.shape[axis] {
                *stride = 0;
            }
        }
        let extent = |&extent: &usize| u32::try_from(extent).with_context(|| format!("{}: {extent}", self.row.name));
        let shape = self.shape.iter().map(extent).collect::<Result<Vec<_>>>()?;
        Ok(AnyView::new(buffer, dtype, &shape, &strides)?)
    }

    fn host<'a, T: Copy, const RANK: usize>(&self, numbers: &'a [T]) -> wgpu_attention::Result<HostView<'a, T, RANK>> {
        let [mut stored, mut shape] = [[1; RANK]; 2];
        stored.copy_from_slice(&self.stored);
        shape.copy_from_slice(&self.shape);
        swap(&mut stored, self.swapped);
        let view = HostView::new(numbers, stored)?;
        let view = self.swapped.map_or(view, |[a, b]| view.swap_axes(a, b));
        Ok(view.broadcast_to(shape))
    }
}

macro_rules! by_kind {
    ($($method:ident: $numbers:ident, $element:ty;)*) => {
        impl<'a> HostTensors<'a> for &'a Tensors {
            $(fn $method<const RANK: usize>(
                &self,
                name: &'static str,
            ) -> wgpu_attention::Result<Option<HostView<'a, $element, RANK>>> {
                let tensor = self.0.iter().find(|tensor| tensor.row.name == name);
                tensor.and_then(|tensor| match &tensor.numbers {
                    Numbers::$numbers(numbers) => Some(tensor.host(numbers)),
                    _ => None,
                }).transpose()
            })*
        }
    };
}
by_kind! {
    floats: Floats, f32;
    integers: Integers, u32;
    mask: Bytes, u8;
}

/// How many elements a tensor of these extents has.
pub fn elements(extents: impl Iterator<Item = u64> + Clone) -> u64 {
    if extents.clone().any(|extent| extent == 0) { 0 } else { extents.fold(1, u64::saturating_mul) }
}

/// Refuses a tensor that no buffer of the device could hold, by its own size.
pub fn expect_room(context: &Context, name: &str, needed: u64) -> Result<()> {
    let limits = context.device().limits();
    let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    if needed > limit {
        return Err(Error::LimitExceeded { what: format!("{name}: bytes in one binding"), needed, limit }.into());
    }
    Ok(())
}

/// The numbers of a tensor, and what the GPU gets them as.
fn load(row: &Operand, tensor: &TensorView) -> Result<(Numbers, DType)> {
    let bytes = tensor.data();
    // Of classes, whatever is negative is none.
    let checked = |value: i64| match row.kind {
        Kind::Index if value < 0 => Ok(u32::MAX),
        // Signed words have the same bits.
        Kind::Bits if i32::try_from(value).is_ok() => Ok(value as u32),
        _ => u32::try_from(value).with_context(|| format!("{value} does not fit u32")),
    };
    Ok(match (row.kind, tensor.dtype()) {
        (Kind::Float | Kind::Statistic, Dtype::F32) => {
            (Numbers::Floats(words(bytes).map(f32::from_le_bytes).collect()), DType::F32)
        }
        (Kind::Float | Kind::Statistic, Dtype::F16) => {
            (Numbers::Floats(words(bytes).map(|word| f16::from_le_bytes(word).to_f32()).collect()), DType::F16)
        }
        (Kind::Float | Kind::Statistic, Dtype::BF16) => {
            (Numbers::Floats(words(bytes).map(|word| bf16::from_le_bytes(word).to_f32()).collect()), DType::BF16)
        }
        (Kind::Float | Kind::Statistic, Dtype::F64) => {
            let rounded = |number: f64| match number as f32 {
                infinite if infinite.is_infinite() && number.is_finite() => Err(anyhow!("{number:e} does not fit f32")),
                rounded => Ok(rounded),
            };
            let numbers = words(bytes).map(|word| rounded(f64::from_le_bytes(word)));
            (Numbers::Floats(numbers.collect::<Result<_>>()?), DType::F32)
        }
        (Kind::Lengths | Kind::Index | Kind::Bits, Dtype::U32) => {
            (Numbers::Integers(words(bytes).map(u32::from_le_bytes).collect()), DType::U32)
        }
        (Kind::Lengths | Kind::Index | Kind::Bits, Dtype::I32) => {
            let words = words(bytes).map(|word| checked(i32::from_le_bytes(word).into()));
            (Numbers::Integers(words.collect::<Result<_>>()?), DType::U32)
        }
        (Kind::Lengths | Kind::Index | Kind::Bits, Dtype::I64) => {
            let words = words(bytes).map(|word| checked(i64::from_le_bytes(word)));
            (Numbers::Integers(words.collect::<Result<_>>()?), DType::U32)
        }
        (Kind::Mask, Dtype::BOOL | Dtype::U8) => (Numbers::Bytes(bytes.to_vec()), DType::Bool),
        (kind, got) => {
            let accepted = match kind {
                Kind::Lengths | Kind::Index | Kind::Bits => "U32, I32 or I64",
                Kind::Mask => "BOOL or U8",
                _ => "F32, F16, BF16 or F64",
            };
            bail!("element type: expected {accepted}, got {got:?}");
        }
    })
}

fn words<const SIZE: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; SIZE]> {
    bytes.chunks_exact(SIZE).map(|chunk| {
        let mut word = [0; SIZE];
        word.copy_from_slice(chunk);
        word
    })
}
