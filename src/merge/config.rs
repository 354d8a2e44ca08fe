//! What the caller asks of a merge.

/// How partial results are merged. Plain data; the kernel and the CPU twin read the same value.
///
/// ```
/// use wgpu_attention::MergeConfig;
/// assert!(MergeConfig::new().accumulate(true).accumulate);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields, default)
)]
pub struct MergeConfig {
    /// Whether what the outputs hold is one part more, before the others: the step of a ring. Before the first step the caller writes
    /// −∞ to all of lse; o and entropy may then hold anything. Zeros will not do: an lse of 0 is that of a part, whose o counts.
    /// Default: false, the outputs are only written.
    pub accumulate: bool,
}

impl MergeConfig {
    /// Outputs are only written.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether what the outputs hold is one part more.
    #[must_use]
    pub fn accumulate(self, accumulate: bool) -> Self {
        Self { accumulate }
    }
}
