//! The machine's own device.

use anyhow::Result;
use wgpu_attention::{Context, ContextOptions, Error};

use super::device::{Assume, Device, Granted};

impl Device {
    /// The adapter whose name contains `name`, or the first that fits; where there is none at all, a GPU is assumed.
    pub fn found(name: Option<&str>) -> Result<Self> {
        let name = name.map(str::to_owned).or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok()).unwrap_or_default();
        // With matrices where the adapter has them: the config may ask for them.
        match Context::headless_with_matrices(&name, ContextOptions::default()) {
            Ok(context) => {
                let info = context.device().adapter_info();
                Ok(Self { name: format!("{} ({:?})", info.name, info.backend), context })
            }
            Err(Error::NoDevice(_)) if name.is_empty() => {
                let assumed = Self::assumed(Assume::Gpu, &Granted::default())?;
                Ok(Self { name: format!("{}, as there is no adapter", assumed.name), ..assumed })
            }
            Err(error) => Err(error.into()),
        }
    }
}
