//! How losses of rows become one, alike in every op that is a loss.

/// How the losses of rows become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Reduction {
    /// They do not.
    #[default]
    None,
    /// Their mean, over the rows that the op counts.
    Mean,
    /// Their sum.
    Sum,
}
