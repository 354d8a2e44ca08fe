//! The sizes of a margin softmax, checked once for the GPU and the CPU twin alike.

use super::MarginSoftmaxConfig;
use crate::op::{GivenNames, Operand, SizeOf, shapes};
use crate::tensor::expect_within;
use crate::{Error, Reduction, Result};

shapes! {
    /// The sizes of a margin softmax, and which optional tensors there are.
    pub struct MarginSoftmaxShapes {
        /// Rows, at most 2³⁰; of 0, a reduced loss is 0.
        rows: u32 = "rows",
        /// Rows of the class weights: the centres of all classes; 1 to 2³⁰.
        class_rows: u32 = "class_rows",
        /// Numbers in a row of features; 1 to 65536.
        dim: u32 = "dim",
        /// Whether there is a `bias`.
        bias: bool = "bias",
        /// Whether there are `class_weights`.
        class_weights: bool = "class_weights",
        /// Whether there are `class_margins`.
        class_margins: bool = "class_margins",
        /// Whether there are `row_margins`.
        row_margins: bool = "row_margins",
        /// How many classes are listed to take part, if not all do; 1 to all.
        sampled: Option<u32> = "sampled",
        /// Whether `lse` is wanted.
        lse: bool = "lse",
        /// Whether `entropy` is wanted.
        entropy: bool = "entropy",
        /// Whether `predicted` is wanted.
        predicted: bool = "predicted",
        /// Whether `others` is wanted.
        others: bool = "others",
        /// Whether `logits` are wanted.
        logits: bool = "logits",
    }
}

/// No extent is larger, so that a tile beyond the end is still indexed by 32 bits.
const MOST: u32 = 1 << 30;
const MAX_DIM: u32 = 1 << 16;

impl MarginSoftmaxShapes {
    /// The loss alone.
    #[must_use]
    pub fn new(rows: u32, class_rows: u32, dim: u32) -> Self {
        Self { rows, class_rows, dim, ..Self::default() }
    }

    /// Of no rows there is still the reduced loss.
    #[expect(clippy::unused_self, reason = "as other sizes have it")]
    pub(crate) fn is_empty(&self) -> bool {
        false
    }
}

/// Refuses sizes that no call has, forward or backward.
pub(super) fn check(
    config: &MarginSoftmaxConfig,
    [rows, class_rows, dim]: [u32; 3],
    sampled: Option<u32>,
) -> Result<()> {
    if rows > MOST {
        let what = "features: rows".into();
        return Err(Error::LimitExceeded { what, needed: rows.into(), limit: MOST.into() });
    }
    expect_within("weights", "class_rows", class_rows, 1..=MOST)?;
    expect_whole_classes(config, class_rows)?;
    sampled.map_or(Ok(()), |count| expect_within("sampled", "sampled", count, 1..=class_rows / config.centres))?;
    expect_within("features", "dim", dim, 1..=MAX_DIM)
}

/// Refuses class weights that are not all centres of their classes.
pub(super) fn expect_whole_classes(config: &MarginSoftmaxConfig, class_rows: u32) -> Result<()> {
    if class_rows.is_multiple_of(config.centres) {
        return Ok(());
    }
    let expected = format!("a multiple of the {} centres of a class", config.centres);
    Err(Error::Shape { tensor: "weights", axis: "class_rows", expected, got: class_rows.into() })
}

/// The sizes that the config derives, forward and backward.
pub(super) fn derived(config: &MarginSoftmaxConfig, size: &SizeOf<'_>, axis: &str) -> Option<(u32, &'static str)> {
    match (axis, config.reduction) {
        ("losses", Reduction::None) => Some((size("rows")?, "one a row")),
        ("losses", _) => Some((1, "the reduction")),
        ("classes", _) => {
            Some((size("class_rows")? / config.centres, "the class_rows of weights, over the centres of a class"))
        }
        _ => None,
    }
}

/// What is wrong with margins in a tensor, forward and backward.
pub(super) fn refuses(config: &MarginSoftmaxConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
    match row.name {
        "class_margins" | "row_margins" if given.has(row) && config.margin.with(0.0).is_none() => {
            Some("is given, but only the margins cosine, angular and metric take an m from it")
        }
        "row_margins" if given.has(row) && given.input("class_margins") => Some("is given, but so is class_margins"),
        "logits" if given.has(row) && given.input("sampled") => {
            Some("is given, but it is of all classes, and sampled lists those that take part")
        }
        _ => None,
    }
}
