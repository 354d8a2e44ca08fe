//! What every op does alike, by its table of operands: shapes, problems, plans by tensors or by sizes alone. Public is what knows
//! an op by names: for bindings to other languages, and tools such as the example `op`.

mod planner;
mod problem;
mod shapes;

use std::fmt;
use std::sync::Arc;

#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::context::{Capabilities, Context};
use crate::dispatch::{Plan, PlanBuilder, Prepared};
use crate::dtype::DType;
pub use crate::operand::{Access, HostTensors, Kind, Operand};
use crate::reference::{Real, SumOrder};
pub use crate::tensor::AnyView;
pub(crate) use planner::Planner;
#[cfg(feature = "blocking")]
pub(crate) use planner::{plan, problem};
pub(crate) use problem::{Problem, extents};
pub(crate) use shapes::{GivenNames, ShapeField, Shapes, SizeOf, Sizes, host_shapes, shapes, takes};

/// An op whose operands are known by their names.
///
/// ```
/// use wgpu_attention::op::{Access, Op};
/// use wgpu_attention::{Attention, AttentionConfig, AttentionShapes};
///
/// let outputs = Attention::operands().iter().filter(|row| row.access == Access::Write);
/// assert_eq!(outputs.map(|row| row.name).collect::<Vec<_>>(), ["o", "lse", "entropy"]);
/// let (config, shapes) = (AttentionConfig::new(), AttentionShapes::new(1, 8, 128, 64));
/// let o = Attention::operands().iter().find(|row| row.name == "o").expect("a row");
/// assert_eq!(Attention::extents(&config, &shapes, o), [1, 8, 128, 64]);
/// ```
///
/// No other crate can have one: its kernels are this crate's.
pub trait Op: sealed::Sealed + Sized {
    /// The name of its module, its shaders, its tests and its bench.
    const NAME: &'static str;
    /// What the caller wants.
    type Config;
    /// The sizes of a call, and which optional operands it has.
    type Shapes;

    /// Its table, inputs first.
    #[must_use]
    fn operands() -> &'static [Operand];

    /// Checks the config; compiles nothing yet.
    ///
    /// # Errors
    /// [`Error::Config`].
    fn create(context: &Context, config: Self::Config) -> Result<Self>;

    /// Picks the kernels for contiguous tensors and compiles them.
    ///
    /// # Errors
    /// As the op's own `plan`.
    fn plan_by_shapes(&self, shapes: &Self::Shapes, dtype: DType) -> Result<Arc<Plan>>;

    /// The sizes of a call with inputs of these extents, by name; what an output holds before is an input here.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Operand`], [`Error::LimitExceeded`].
    fn shapes_of(config: &Self::Config, inputs: &[(&'static str, Vec<usize>)]) -> Result<Self::Shapes>;

    /// The extents that an operand has in a call, whether the call has it or not.
    #[must_use]
    fn extents(config: &Self::Config, shapes: &Self::Shapes, operand: &Operand) -> Vec<u32>;

    /// Whether a call with these inputs, by name, may have an optional operand.
    #[must_use]
    fn takes(config: &Self::Config, inputs: &[&str], operand: &Operand) -> bool;

    /// Checks tensors, each under the name and access of its row, and finds their plan.
    ///
    /// # Errors
    /// As the op's own `prepare`, and [`Error::Operand`] for a tensor that is no row of the table, or a required one that is
    /// missing.
    fn prepare_by_name<'a>(&self, tensors: &[(&str, Access, AnyView<'a>)]) -> Result<Prepared<'a>>;

    /// All outputs by the CPU twin, by name.
    ///
    /// # Errors
    /// As the twin itself.
    fn twin<'a, T: Real>(
        config: &Self::Config,
        inputs: &impl HostTensors<'a>,
        order: SumOrder,
    ) -> Result<Vec<(&'static str, Vec<T>)>>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// Declares an op and what all have alike: `new`, `config`, `plan`, `prepare`, `record`, `record_in`; [`Op`]; and the sizes of the
/// twin's inputs.
macro_rules! op {
    (
        $(#[$meta:meta])*
        pub struct $Op:ident: $Config:ident, $Shapes:ident, $Inputs:ident => $Outputs:ident;
        $(#[$plan_meta:meta])*
        plan;
    ) => {
        $(#[$meta])*
        pub struct $Op($crate::op::Planner<$Op>);

        impl std::fmt::Debug for $Op {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($Op)).field(&self.0.config).finish()
            }
        }

        impl $Op {
            /// Checks the config; compiles nothing yet.
            ///
            /// # Errors
            /// [`Error::Config`](crate::Error::Config) naming the option. Whether the device takes it, [`plan`](Self::plan) says.
            pub fn new(context: &$crate::Context, config: $Config) -> $crate::Result<Self> {
                <Self as $crate::op::Kernels>::check_config(&config)?;
                Ok(Self($crate::op::Planner::new(context, config)))
            }

            /// The config.
            #[must_use]
            pub fn config(&self) -> &$Config {
                &self.0.config
            }

            $(#[$plan_meta])*
            ///
            /// # Errors
            /// [`Error::Shape`](crate::Error::Shape) and [`Error::Operand`](crate::Error::Operand) for shapes that do not fit together or
            /// the config; [`Error::LimitExceeded`](crate::Error::LimitExceeded) and
            /// [`Error::Unsupported`](crate::Error::Unsupported) for what the device has no room or no kernel for;
            /// [`Error::Stride`](crate::Error::Stride) where rows of an output in 16 bits would share a word;
            /// [`Error::DType`](crate::Error::DType) for a type that no float is stored as; [`Error::Pipeline`](crate::Error::Pipeline);
            /// [`Error::DeviceLost`](crate::Error::DeviceLost).
            pub fn plan(
                &self,
                shapes: &$Shapes,
                dtype: $crate::DType,
            ) -> $crate::Result<std::sync::Arc<$crate::Plan>> {
                self.0.plan(shapes, dtype)
            }

            /// Checks tensors and finds their plan; compiles only what no earlier plan needed.
            ///
            /// # Errors
            /// Whatever is wrong with the tensors, by name; see [`Error`](crate::Error). Nothing has been recorded.
            pub fn prepare<'a>(
                &self,
                inputs: $Inputs<'a>,
                outputs: $Outputs<'a>,
            ) -> $crate::Result<$crate::Prepared<'a>> {
                self.0.prepare(&views(inputs, outputs))
            }

            /// Records the call into `encoder` as a compute pass of its own. Plans first if the shapes are new.
            ///
            /// # Errors
            /// As [`prepare`](Self::prepare).
            pub fn record(
                &self,
                encoder: &mut wgpu::CommandEncoder,
                inputs: $Inputs<'_>,
                outputs: $Outputs<'_>,
            ) -> $crate::Result<()> {
                self.prepare(inputs, outputs).map(|prepared| prepared.record(encoder))
            }

            /// Records the call into a pass of the caller's. Plans first if the shapes are new.
            ///
            /// # Errors
            /// As [`prepare`](Self::prepare).
            pub fn record_in(
                &self,
                pass: &mut wgpu::ComputePass<'_>,
                inputs: $Inputs<'_>,
                outputs: $Outputs<'_>,
            ) -> $crate::Result<()> {
                self.prepare(inputs, outputs).map(|prepared| prepared.record_in(pass))
            }
        }

        impl HostInputs<'_> {
            /// The problem's sizes. Which outputs a call on the GPU has, they do not say: a twin computes them all.
            ///
            /// # Errors
            #[doc = concat!("As [`", stringify!($Op), "::prepare`](crate::", stringify!($Op), "::prepare), for what concerns shapes and which are given.")]
            pub fn shapes(&self, config: &$Config) -> $crate::Result<$Shapes> {
                $crate::op::host_shapes::<$Op>(config, &self.extents())
            }
        }

        impl $crate::op::sealed::Sealed for $Op {}

        impl $crate::op::Op for $Op {
            const NAME: &'static str = <Self as $crate::op::Kernels>::NAME;
            type Config = $Config;
            type Shapes = $Shapes;

            fn operands() -> &'static [$crate::op::Operand] {
                OPERANDS
            }

            fn create(context: &$crate::Context, config: $Config) -> $crate::Result<Self> {
                Self::new(context, config)
            }

            fn plan_by_shapes(
                &self,
                shapes: &$Shapes,
                dtype: $crate::DType,
            ) -> $crate::Result<std::sync::Arc<$crate::Plan>> {
                self.plan(shapes, dtype)
            }

            fn shapes_of(config: &$Config, inputs: &[(&'static str, Vec<usize>)]) -> $crate::Result<$Shapes> {
                $crate::op::host_shapes::<Self>(config, inputs)
            }

            fn extents(config: &$Config, shapes: &$Shapes, operand: &$crate::op::Operand) -> Vec<u32> {
                $crate::op::extents::<Self>(config, shapes, operand)
            }

            fn takes(config: &$Config, inputs: &[&str], operand: &$crate::op::Operand) -> bool {
                $crate::op::takes::<Self>(config, inputs, operand)
            }

            fn prepare_by_name<'a>(
                &self,
                tensors: &[(&str, $crate::op::Access, $crate::op::AnyView<'a>)],
            ) -> $crate::Result<$crate::Prepared<'a>> {
                self.0.prepare_by_name(tensors)
            }

            fn twin<'a, T: $crate::reference::Real>(
                config: &$Config,
                inputs: &impl $crate::op::HostTensors<'a>,
                order: $crate::reference::SumOrder,
            ) -> $crate::Result<Vec<(&'static str, Vec<T>)>> {
                reference::by_name(config, &HostInputs::take(inputs)?, order)
            }
        }
    };
}
pub(crate) use op;

/// An op, as the rest of the crate knows it.
pub(crate) trait Kernels: Sized + 'static {
    const NAME: &'static str;
    const OPERANDS: &'static [Operand];
    type Config: Copy + fmt::Debug;
    type Shapes: Shapes;
    /// What a tuning may take in place of the tables' choice, by its `Display`.
    type Offer: fmt::Display;

    /// Refuses values of the config that mean nothing.
    fn check_config(_config: &Self::Config) -> Result<()> {
        Ok(())
    }

    /// Refuses sizes that do not fit the config or the kernels.
    fn check(config: &Self::Config, shapes: &Self::Shapes) -> Result<()>;

    /// What is wrong with an operand being given, or missing, if anything is.
    fn refuses(_config: &Self::Config, _given: &GivenNames, _row: &Operand) -> Option<&'static str> {
        None
    }

    /// The size of an axis that no tensor decides, and what does.
    fn derived(_config: &Self::Config, _size: &SizeOf<'_>, _axis: &str) -> Option<(u32, &'static str)> {
        None
    }

    /// Rows that belong together in every tensor of a list, and what they are.
    fn together(_config: &Self::Config) -> (u32, &'static str) {
        (1, "row")
    }

    /// Why an operand that may be stored in 16 bits must be f32 here, if it must.
    fn must_be_f32(_config: &Self::Config, _name: &str) -> Option<&'static str> {
        None
    }

    /// Whether a call of these sizes has an optional operand: as they say by its name, or, of an input, by having an axis of its own.
    fn has(_config: &Self::Config, shapes: &Self::Shapes, row: &Operand) -> bool {
        let has_axis = || (0..row.rank()).flat_map(|axis| row.names(axis)).any(|name| shapes.has(name));
        shapes.has(row.key()) || row.access == Access::Read && has_axis()
    }

    /// Compiles the kernels and lays out the dispatches.
    fn build(
        plan: PlanBuilder<'_>,
        config: &Self::Config,
        problem: &Problem<Self::Shapes>,
        offer: Option<&Self::Offer>,
    ) -> Result<Plan>;

    /// What calls of one class have in common.
    fn class(_config: &Self::Config, _problem: &Problem<Self::Shapes>) -> String {
        Self::NAME.into()
    }

    /// Everything that is right for the problem on this device.
    fn offers(_config: &Self::Config, _problem: &Problem<Self::Shapes>, _device: &Capabilities) -> Vec<Self::Offer> {
        Vec::new()
    }

    /// The names of those on offer that make another choice than the default, kernel by kernel.
    #[cfg(feature = "blocking")]
    fn candidates(
        _config: &Self::Config,
        _problem: &Problem<Self::Shapes>,
        _device: &Capabilities,
    ) -> Result<Vec<Vec<String>>> {
        Ok(Vec::new())
    }

    /// Whether products are of f16, rounded in another order by each kernel.
    #[cfg(feature = "blocking")]
    fn in_f16(_config: &Self::Config) -> bool {
        false
    }
}
