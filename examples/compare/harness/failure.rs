//! Why there is no number.

use wgpu_attention::Error;

/// Why there is no number for a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The library says that it cannot do this, and why.
    Refused(String),
    /// Something that should have worked did not: a wrong result, a driver's error.
    Failed(String),
}

impl Failure {
    /// The same, naming what it is of.
    pub fn of(self, what: &str) -> Self {
        match self {
            Self::Refused(reason) => Self::Refused(format!("{what}: {reason}")),
            Self::Failed(reason) => Self::Failed(format!("{what}: {reason}")),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Pipeline { .. } | Error::NoDevice(_) | Error::Readback(_) | Error::DeviceLost => {
                Self::Failed(error.to_string())
            }
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "not run: {reason}"),
            Self::Failed(reason) => write!(f, "ERROR: {reason}"),
        }
    }
}
