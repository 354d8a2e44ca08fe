//! What a plan depends on, and what the names in a kernel stand for.

use super::{Kernels, Shapes};
use crate::Result;
use crate::context::Capabilities;
use crate::dispatch::{Names, Slot, View};
use crate::dtype::{DType, Storage};
use crate::operand::{Access, Operand};
use crate::tensor::{Layout, MAX_RANK};
use crate::tuning::Class;
use crate::wgsl::Specialization;

/// An op's table, which two problems of one op have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table(pub &'static [Operand]);

impl PartialEq for Table {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Table {}
impl std::hash::Hash for Table {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

/// Everything that a plan depends on besides the config: sizes, and where the tensors lie, by the rows of the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Problem<S> {
    pub shapes: S,
    pub(super) table: Table,
    /// The tensors that are given, each with its row, in the order of the table.
    pub(super) tensors: Vec<(usize, Layout)>,
    /// Whether the state that comes in and the one that goes out are the same views.
    pub in_place: bool,
}

/// The extents of an operand: as the sizes have them, or as they follow from them.
pub(crate) fn extents<O: Kernels>(config: &O::Config, shapes: &O::Shapes, row: &Operand) -> Vec<u32> {
    let known = |name| shapes.axis(name).or_else(|| Some(O::derived(config, &|axis| shapes.axis(axis), name)?.0));
    (0..row.rank()).map(|axis| row.names(axis).find_map(known).unwrap_or(0)).collect()
}

impl<S: Shapes> Problem<S> {
    /// Contiguous tensors of f32, each at the start of its buffer; a state that goes in and out does so in place.
    pub fn contiguous<O: Kernels<Shapes = S>>(config: &O::Config, shapes: S) -> Self {
        let layout = |row: &Operand| {
            let mut extents = extents::<O>(config, &shapes, row);
            let transposed = shapes.is_transposed(row.name);
            if transposed {
                extents[row.rank() - 2..].reverse();
            }
            Layout { transposed, ..Layout::contiguous(&extents, Storage::Plain(row.dtype().unwrap_or(DType::F32))) }
        };
        let has = |row: &Operand| !row.optional || O::has(config, &shapes, row);
        let rows = O::OPERANDS.iter().enumerate().filter(|(_, row)| has(row));
        let tensors: Vec<_> = rows.map(|(index, row)| (index, layout(row))).collect();
        let is_state = |access| {
            let mut given = tensors.iter().map(|(index, _)| &O::OPERANDS[*index]);
            given.any(|row| row.state && row.access == access)
        };
        let in_place = is_state(Access::Read) && is_state(Access::Write);
        Self { shapes, table: Table(O::OPERANDS), tensors, in_place }
    }

    /// A part of another op's plan, with these of its tensors, whose views the plan's dispatches say.
    pub fn within<O: Kernels<Shapes = S>>(shapes: S, layout: impl Fn(&Operand) -> Option<Layout>) -> Self {
        let rows = O::OPERANDS.iter().enumerate();
        let tensors = rows.filter_map(|(index, row)| Some((index, layout(row)?))).collect();
        Self { shapes, table: Table(O::OPERANDS), tensors, in_place: false }
    }

    /// The same tensors by other sizes, as kernels ask for them that another op shares.
    pub fn with_shapes<T>(&self, shapes: T) -> Problem<T> {
        Problem { shapes, table: self.table, tensors: self.tensors.clone(), in_place: self.in_place }
    }

    /// The same with floats in another type, as far as the table lets them.
    pub fn stored<O: Kernels>(mut self, config: &O::Config, dtype: DType, device: &Capabilities) -> Result<Self> {
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for (index, layout) in self.tensors {
            let row = &O::OPERANDS[index];
            let as_f32 = row.dtype().is_some() || row.planned_as_f32 || O::must_be_f32(config, row.name).is_some();
            let layout = if as_f32 { layout } else { layout.stored(row, dtype, device)? };
            let parts =
                if row.list { layout.bindable_parts(O::together(config).0, &device.limits) } else { vec![layout] };
            tensors.extend(parts.into_iter().map(|part| (index, part)));
        }
        self.tensors = tensors;
        Ok(self)
    }

    /// The tensors that are given, by their place among them.
    pub fn given(&self) -> impl Iterator<Item = (usize, &'static Operand, &Layout)> {
        self.tensors.iter().enumerate().map(|(slot, (row, layout))| (slot, &self.table.0[*row], layout))
    }

    /// The names of all operands, given or not, each once.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let rows = self.table.0.iter().enumerate();
        rows.filter(|(index, row)| self.row(row.name) == Some(*index)).map(|(_, row)| row.name)
    }

    /// The first row of a name: the input, where an output has it too.
    fn row(&self, name: &str) -> Option<usize> {
        self.table.0.iter().position(|row| row.name == name)
    }

    /// The first tensor of a row.
    fn first(&self, row: usize) -> Option<(usize, &'static Operand, &Layout)> {
        let slot = self.tensors.iter().position(|(own, _)| *own == row)?;
        Some((slot, &self.table.0[row], &self.tensors[slot].1))
    }

    fn find(&self, name: &str) -> Option<(usize, &'static Operand, &Layout)> {
        let row = self.row(name)?;
        self.first(row).or_else(|| self.first(self.row(self.table.0[row].or?)?))
    }

    fn find_output(&self, name: &str) -> Option<(usize, &'static Operand, &Layout)> {
        self.given().find(|(_, row, _)| row.name == name && row.access == Access::Write)
    }

    /// Where an operand itself lies, if it is given.
    pub fn own(&self, name: &str) -> Option<&Layout> {
        Some(self.first(self.row(name)?)?.2)
    }

    /// Where an operand lies, or what takes its place; an input, where an output has its name.
    pub fn get(&self, name: &str) -> Option<&Layout> {
        self.find(name).map(|(.., layout)| layout)
    }

    /// Whether an operand itself is given.
    pub fn has(&self, name: &str) -> bool {
        self.row(name).is_some_and(|row| self.first(row).is_some())
    }

    pub fn output(&self, name: &str) -> Option<&Layout> {
        self.find_output(name).map(|(.., layout)| layout)
    }

    /// Whether every row of these starts at a multiple of four elements and has a multiple of four; those not given, too.
    pub fn is_vec4(&self, names: &[&str]) -> bool {
        let mut rows = names.iter().filter_map(|name| Some(self.tensors[self.find(name)?.0].0));
        rows.all(|row| self.tensors.iter().filter(|(own, _)| *own == row).all(|(_, layout)| layout.is_vec4()))
    }

    /// How an operand is stored.
    pub fn storage(&self, name: &str) -> Storage {
        self.get(name).map_or(Storage::Plain(DType::F32), |layout| layout.storage)
    }

    /// What kernels call by the name of an operand.
    pub fn view(&self, name: &str) -> Option<View> {
        self.find(name).map(view)
    }

    pub fn output_view(&self, name: &str) -> Option<View> {
        self.find_output(name).map(view)
    }

    /// What kernels call by the names of the operands that are given, from one of their rows on.
    pub fn rows_from(&self, first: u32) -> impl Iterator<Item = (&'static str, View)> {
        self.given().map(move |given| (given.1.name, view(given).rows_from(first)))
    }

    /// The tensors of a list, in order, and what kernels call by the name of each.
    pub fn list(&self, name: &str) -> impl Iterator<Item = (&Layout, View)> {
        let own = self.given().filter(move |(_, row, _)| row.name == name);
        own.map(|(slot, row, layout)| (layout, view((slot, row, layout))))
    }

    /// Bytes of every operand once; a repeated axis counts once.
    pub fn bytes(&self) -> u64 {
        self.given().fold(0, |sum, (.., layout)| sum.saturating_add(layout.bytes()))
    }

    /// Bytes of the outputs.
    pub fn output_bytes(&self) -> u64 {
        let outputs = self.given().filter(|(_, row, _)| row.access == Access::Write);
        outputs.fold(0, |sum, (.., layout)| sum.saturating_add(layout.bytes()))
    }

    /// A class of calls by how its main tensors are stored, and whether in fours.
    pub fn class(&self, class: Class, tensors: &[&str]) -> String {
        let class = class.with("scalar", !self.is_vec4(tensors));
        tensors.iter().fold(class, |class, name| class.stored(name, self.storage(name))).name()
    }

    /// The layouts of a name, to be changed by a test of kernels.
    pub fn change(&mut self, name: &str, change: impl Fn(&mut Layout)) {
        let own = self.tensors.iter_mut().filter(|(row, _)| self.table.0[*row].name == name);
        own.for_each(|(_, layout)| change(layout));
    }
}

fn view((slot, row, layout): (usize, &'static Operand, &Layout)) -> View {
    let mut names = [""; MAX_RANK];
    (0..row.rank()).for_each(|axis| names[axis] = row.stride(axis));
    View { slot: Slot::Operand(slot), start: layout.start, strides: layout.strides, names }
}

impl<S: Shapes> Names for Problem<S> {
    fn size(&self, axis: &str) -> Option<u32> {
        self.shapes.axis(axis)
    }

    fn named(&self, operand: &str) -> Option<View> {
        self.view(operand)
    }

    fn knows(&self, operand: &str, number: &str) -> bool {
        let has = |row: &Operand| number == "start" || (0..row.rank()).any(|axis| row.stride(axis) == number);
        self.table.0.iter().any(|row| row.name == operand && has(row))
    }
}

impl Specialization {
    /// The kernel with its operands stored as a problem has them. `others` are bindings that stand for something else than their
    /// names say; an operand that is an output is found there too, where an input has its name.
    #[must_use]
    pub(crate) fn of<S: Shapes>(self, problem: &Problem<S>, others: &[(&'static str, Storage)]) -> Self {
        let declared = self.interface().bindings;
        let other = |name: &str| others.iter().find(|(own, _)| *own == name).map(|(_, storage)| *storage);
        let own = problem.names().filter(|name| declared.iter().any(|(_, variable)| variable == name));
        let own: Vec<_> = own.filter(|name| other(name).is_none()).map(|name| (name, problem.storage(name))).collect();
        let others = others.iter().filter(|(name, _)| declared.iter().any(|(_, variable)| variable == name));
        self.stored(own.into_iter().chain(others.copied()))
    }
}
