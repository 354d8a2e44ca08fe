//! What can go wrong, sorted by what the caller can do about it.

/// Every way in which a call of this crate can fail.
///
/// A call that returns an error has recorded nothing. Lengths are in elements, sizes in bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor's extent along one axis is not what the others or the config ask for.
    #[error("{tensor}: axis {axis}: expected {expected}, got {got}")]
    Shape {
        /// The field of the op's inputs or outputs.
        tensor: &'static str,
        /// The axis of that tensor.
        axis: &'static str,
        /// What the axis may be.
        expected: String,
        /// What it is.
        got: u64,
    },
    /// A stride that no kernel can follow: the innermost must be 1, and an output must not overlap itself.
    #[error("{tensor}: stride of axis {axis}: expected {expected}, got {got}")]
    Stride {
        /// The field of the op's inputs or outputs.
        tensor: &'static str,
        /// The axis of that tensor.
        axis: &'static str,
        /// What the stride may be, in elements.
        expected: String,
        /// What it is, in elements.
        got: u64,
    },
    /// A tensor's element type is not the one the op takes.
    #[error("{tensor}: element type: expected {expected}, got {got:?}")]
    DType {
        /// The field of the op's inputs or outputs.
        tensor: &'static str,
        /// What the op takes.
        expected: &'static str,
        /// What the view has.
        got: crate::DType,
    },
    /// Offset, shape and strides reach past the end of the buffer.
    #[error("{tensor}: the view ends at byte {needed}, the buffer at byte {got}")]
    BufferTooSmall {
        /// The field of the op's inputs or outputs.
        tensor: &'static str,
        /// Bytes the view needs, from the start of the buffer.
        needed: u64,
        /// Bytes the buffer has.
        got: u64,
    },
    /// The buffer was created without a usage that the kernel needs.
    #[error("{tensor}: the buffer lacks usage {missing:?}")]
    Usage {
        /// The field of the op's inputs or outputs.
        tensor: &'static str,
        /// The flags to add.
        missing: wgpu::BufferUsages,
    },
    /// An output shares its buffer with an input, or overlaps another output.
    #[error("{output}: {reason} {other}")]
    Aliased {
        /// The output.
        output: &'static str,
        /// How the two meet.
        reason: &'static str,
        /// The other tensor.
        other: &'static str,
    },
    /// An operand that the config asks for is missing, one is given that it has no use for, or it starts where no kernel can
    /// write it.
    #[error("{tensor}: {problem}")]
    Operand {
        /// The field of the op's inputs or outputs.
        tensor: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An option of the config has a value that means nothing.
    #[error("option {option}: expected {expected}, got {got}")]
    Config {
        /// The option.
        option: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// A size is beyond what the device, or a 32-bit index, allows.
    #[error("{what}: needs {needed}, the limit is {limit}")]
    LimitExceeded {
        /// The quantity and the tensor it belongs to.
        what: String,
        /// What the call would take.
        needed: u64,
        /// What there is.
        limit: u64,
    },
    /// No kernel can do this on this device.
    #[error("unsupported: {}", reasons.join("; "))]
    Unsupported {
        /// Every reason, not just the first.
        reasons: Vec<String>,
    },
    /// The driver refused a shader or a pipeline.
    #[error("pipeline `{label}`: {message}")]
    Pipeline {
        /// The specialization.
        label: String,
        /// The compiler's words; line numbers are those of the files under `shaders/`.
        message: String,
    },
    /// The device did not give a buffer, for want of memory most likely.
    #[error("{what}: a buffer of {size} bytes: {message}")]
    Buffer {
        /// What the buffer is for.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// The device's words.
        message: String,
    },
    /// A tuning was measured on another device, or by another version of this crate.
    #[error("tuning: {what}: expected {expected}, got {got}")]
    Tuning {
        /// What differs.
        what: &'static str,
        /// What this context has.
        expected: String,
        /// What the tuning has.
        got: String,
    },
    /// There is no adapter, or it gave no device (feature `blocking`).
    #[error("no GPU device: {0}")]
    NoDevice(String),
    /// A blocking call did not come through: wgpu refused what it was given, as it does with a destroyed buffer, or the result
    /// could not be read back.
    #[error("read back: {0}")]
    Readback(String),
    /// The device is lost: its driver gave up on it, or the app destroyed it. No later call on it succeeds, and nothing on it can
    /// be read back; go on with a new device, a [`Context`](crate::Context) of it, and new ops and buffers.
    #[error("the device is lost")]
    DeviceLost,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
