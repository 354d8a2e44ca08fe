//! In what order a file has the axes of its tensors, by the names that they have in the op's table.

use std::collections::HashMap;

use anyhow::{Result, bail};
use wgpu_attention::op::{Op, Operand};

/// Which tensors have two axes in the other order.
pub struct Axes {
    bshd: bool,
    transposed: Vec<&'static str>,
}

impl Axes {
    /// By `layout` and `transpose` of a file's metadata.
    pub fn new<O: Op>(metadata: &HashMap<String, String>) -> Result<Self> {
        let (layout, rows) = (metadata.get("layout"), O::operands());
        if layout.is_some() && !rows.iter().any(|row| heads_and_len(row).is_some()) {
            bail!("metadata: layout: {} has no tensor [batch, heads, len, dim]", O::NAME);
        }
        let bshd = match layout.map_or("bhsd", String::as_str) {
            "bhsd" => false,
            "bshd" => true,
            other => bail!("metadata: layout: expected bhsd or bshd; got {other}"),
        };
        let matrices: Vec<_> = rows.iter().filter(|row| row.either_order).map(|row| row.name).collect();
        let mut transposed = Vec::new();
        for name in metadata.get("transpose").iter().flat_map(|list| list.split(',')).map(str::trim) {
            match matrices.iter().find(|matrix| **matrix == name) {
                Some(matrix) => transposed.push(*matrix),
                None if matrices.is_empty() => bail!("metadata: transpose: {} has no matrices", O::NAME),
                None => bail!("metadata: transpose: expected some of {}; got {name}", matrices.join(", ")),
            }
        }
        Ok(Self { bshd, transposed })
    }

    /// The two axes of an operand that the file has in the other order, if there are such.
    pub fn swapped(&self, row: &Operand) -> Option<[usize; 2]> {
        if self.transposed.contains(&row.name) {
            return Some([row.rank() - 2, row.rank() - 1]);
        }
        heads_and_len(row).filter(|_| self.bshd)
    }
}

/// Where an operand has its heads and its rows, if it is rows of numbers, head by head; bias, mask and states are not.
fn heads_and_len(row: &Operand) -> Option<[usize; 2]> {
    let heads = row.rank().checked_sub(3)?;
    let ends = ["heads", "len", "dim"];
    let named = ends.iter().enumerate().all(|(axis, end)| row.axis(heads + axis).ends_with(end));
    named.then_some([heads, heads + 1])
}

/// From the order of the table to that of the file, or back.
pub fn swap<T>(axes: &mut [T], swapped: Option<[usize; 2]>) {
    if let Some([a, b]) = swapped {
        axes.swap(a, b);
    }
}

/// For each axis in the order of the table, the stride of what lies in memory by that of the file.
pub fn strides(extents: &[u64], swapped: Option<[usize; 2]>) -> Vec<u64> {
    let mut order: Vec<usize> = (0..extents.len()).collect();
    swap(&mut order, swapped);
    let (mut strides, mut stride) = (vec![0; extents.len()], 1u64);
    for axis in order.into_iter().rev() {
        strides[axis] = stride;
        stride = stride.saturating_mul(extents[axis]);
    }
    strides
}

/// Numbers in the order of the table, as the file would have them.
pub fn reordered<T: Copy>(data: Vec<T>, shape: &[usize], swapped: Option<[usize; 2]>) -> Vec<T> {
    let Some([a, b]) = swapped else { return data };
    let (rows, columns, inner) = (shape[a], shape[b], shape[b + 1..].iter().product::<usize>());
    let index = |at: usize| {
        let (rest, c) = (at / inner, at % inner);
        let (rest, row) = (rest / rows, rest % rows);
        let (outer, column) = (rest / columns, rest % columns);
        ((outer * rows + row) * columns + column) * inner + c
    };
    (0..data.len()).map(|at| data[index(at)]).collect()
}
