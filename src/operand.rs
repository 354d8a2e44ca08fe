//! An op's operands, each declared once: a row of its table, a field of its inputs or outputs, a field of its twin's inputs.

use crate::dtype::DType;
use crate::host::HostView;
use crate::tensor::{AnyView, TensorView};

/// What an operand's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Floats, stored as f32, f16 or bf16, as the caller likes.
    Float,
    /// Floats that are always f32: log-sum-exp, entropy, running maxima.
    Statistic,
    /// Lengths, as u32.
    Lengths,
    /// Numbers of classes, as u32, of which `u32::MAX` is none.
    Index,
    /// Words of 32 bits that count nothing: keys of random numbers, seeds.
    Bits,
    /// Bytes, of which zero is false.
    Mask,
}

/// Whether a kernel reads an operand, or also writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A field of the op's inputs.
    Read,
    /// A field of the op's outputs.
    Write,
}

/// What stands in an operand where a call is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fill {
    /// Near a standard normal distribution.
    Usual,
    /// The same without signs.
    Positive,
    /// The same number everywhere.
    Constant(f32),
}

/// A row of an op's table of operands.
///
/// An axis is a name that has one size in a call. What the config derives, it says; else the first required input that names it, in the
/// order of the table, or the first that may not be broadcast, and then whatever else does. Where a tensor stands for several, its axis is written `shown=name=name`, and gives each of the names its size; `shown:name` has a name
/// of its own that messages do not show.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// The field of the op's inputs or outputs, and the variable in its kernels.
    pub name: &'static str,
    axes: &'static [&'static str],
    /// What its elements are.
    pub kind: Kind,
    /// Whether it is an input or an output.
    pub access: Access,
    /// Whether a call may do without it.
    pub optional: bool,
    /// Whether a loss has a gradient with respect to it: of inputs that are floats, but for those that are drawn once and stay.
    pub gradient: bool,
    /// Whether an outer axis of extent 1 stands for any extent where a file has it so.
    pub broadcast: bool,
    /// Whether a call gives a list of tensors, which are one along the first axis, in the order of the list.
    pub list: bool,
    /// Whether the last two axes may stand in memory in either order.
    pub either_order: bool,
    /// Whether it is part of a state, whose output may lie where its input lies.
    pub(crate) state: bool,
    /// Whether it is also read, where the config has the op go on from what it holds.
    pub held: bool,
    /// Whether a plan without tensors takes it to be f32, whatever the others are.
    pub(crate) planned_as_f32: bool,
    /// What takes its place where it is not given.
    pub(crate) or: Option<&'static str>,
    #[cfg_attr(not(feature = "blocking"), expect(dead_code, reason = "read where calls are measured"))]
    pub(crate) fill: Fill,
}

impl Operand {
    const fn new(name: &'static str, kind: Kind, axes: &'static [&'static str]) -> Self {
        Self {
            name,
            axes,
            kind,
            access: Access::Read,
            optional: false,
            gradient: matches!(kind, Kind::Float),
            broadcast: false,
            list: false,
            either_order: false,
            state: false,
            held: false,
            planned_as_f32: false,
            or: None,
            fill: Fill::Usual,
        }
    }

    pub(crate) const fn float(name: &'static str, axes: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Float, axes)
    }

    pub(crate) const fn statistic(name: &'static str, axes: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Statistic, axes)
    }

    pub(crate) const fn lengths(name: &'static str, axes: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Lengths, axes)
    }

    pub(crate) const fn index(name: &'static str, axes: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Index, axes)
    }

    pub(crate) const fn bits(name: &'static str, axes: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Bits, axes)
    }

    pub(crate) const fn mask(name: &'static str, axes: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Mask, axes)
    }

    pub(crate) const fn required(self) -> Self {
        self
    }

    pub(crate) const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    pub(crate) const fn list(self) -> Self {
        Self { list: true, ..self }
    }

    pub(crate) const fn optional_list(self) -> Self {
        self.list().optional()
    }

    pub(crate) const fn written(self) -> Self {
        Self { access: Access::Write, gradient: false, ..self }
    }

    pub(crate) const fn without_gradient(self) -> Self {
        Self { gradient: false, ..self }
    }

    pub(crate) const fn broadcast(self) -> Self {
        Self { broadcast: true, ..self }
    }

    pub(crate) const fn either_order(self) -> Self {
        Self { either_order: true, ..self }
    }

    pub(crate) const fn state(self) -> Self {
        Self { state: true, planned_as_f32: true, ..self }
    }

    pub(crate) const fn held(self) -> Self {
        Self { held: true, ..self }
    }

    pub(crate) const fn planned_as_f32(self) -> Self {
        Self { planned_as_f32: true, ..self }
    }

    pub(crate) const fn or(self, other: &'static str) -> Self {
        Self { or: Some(other), ..self }
    }

    pub(crate) const fn filled(self, fill: Fill) -> Self {
        Self { fill, ..self }
    }

    /// How many axes it has.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.axes.len()
    }

    /// What a call's sizes know it by: all tensors of a state have one key.
    pub(crate) fn key(&self) -> &'static str {
        match (self.state, self.access) {
            (true, Access::Read) => "state_in",
            (true, Access::Write) => "state_out",
            (false, _) => self.name,
        }
    }

    /// What an axis is called in messages.
    ///
    /// # Panics
    /// Past the last.
    #[must_use]
    pub fn axis(&self, index: usize) -> &'static str {
        self.axes[index].split(['=', ':']).next().unwrap_or_default()
    }

    /// The names of axes whose size one of its own is.
    ///
    /// # Panics
    /// Past the last.
    pub fn names(&self, index: usize) -> impl Iterator<Item = &'static str> {
        self.axes[index].rsplit(':').next().unwrap_or_default().split('=')
    }

    /// The element type, if the caller has no choice.
    pub(crate) fn dtype(&self) -> Option<DType> {
        match self.kind {
            Kind::Float => None,
            Kind::Statistic => Some(DType::F32),
            Kind::Lengths | Kind::Index | Kind::Bits => Some(DType::U32),
            Kind::Mask => Some(DType::Bool),
        }
    }

    /// What kernels call the stride of an axis, after the operand's name: `q_row` is that of `q_len`.
    pub(crate) fn stride(&self, index: usize) -> &'static str {
        match self.axis(index) {
            _ if self.rank() == 1 => "stride",
            "parts" => "part",
            "features" if self.names(index).any(|name| name == "features") => "row",
            "features" => "feature",
            axis if axis.ends_with("heads") => "head",
            axis if axis.ends_with("len") => "row",
            axis => axis,
        }
    }
}

/// A field of an op's inputs or outputs: a tensor, none, or a list of them.
pub(crate) trait Given<'a> {
    fn views(self) -> impl Iterator<Item = AnyView<'a>>;
}

impl<'a, const RANK: usize> Given<'a> for TensorView<'a, RANK> {
    fn views(self) -> impl Iterator<Item = AnyView<'a>> {
        std::iter::once(self.into())
    }
}

impl<'a, const RANK: usize> Given<'a> for Option<TensorView<'a, RANK>> {
    fn views(self) -> impl Iterator<Item = AnyView<'a>> {
        self.into_iter().map(AnyView::from)
    }
}

impl<'a, const RANK: usize> Given<'a> for &'a [TensorView<'a, RANK>] {
    fn views(self) -> impl Iterator<Item = AnyView<'a>> {
        self.iter().copied().map(AnyView::from)
    }
}

/// Where the host tensors of a call come from by name; see [`op::Op`](crate::op::Op).
pub trait HostTensors<'a> {
    /// Floats, if there are any by this name with so many axes.
    ///
    /// # Errors
    /// Whatever keeps it from being such a tensor.
    fn floats<const RANK: usize>(&self, name: &'static str) -> crate::Result<Option<HostView<'a, f32, RANK>>>;
    /// Lengths, numbers of classes, or words of bits.
    ///
    /// # Errors
    /// Whatever keeps it from being such a tensor.
    fn integers<const RANK: usize>(&self, name: &'static str) -> crate::Result<Option<HostView<'a, u32, RANK>>>;
    /// Booleans.
    ///
    /// # Errors
    /// Whatever keeps it from being such a tensor.
    fn mask<const RANK: usize>(&self, name: &'static str) -> crate::Result<Option<HostView<'a, u8, RANK>>>;
}

/// A field of a twin's inputs.
pub(crate) trait HostField<'a>: Sized {
    fn extents(&self) -> Option<Vec<usize>>;
    fn take(tensors: &impl HostTensors<'a>, name: &'static str) -> crate::Result<Self>;
}

macro_rules! host_field {
    ($($element:ty: $take:ident),*) => {$(
        impl<'a, const RANK: usize> HostField<'a> for HostView<'a, $element, RANK> {
            fn extents(&self) -> Option<Vec<usize>> {
                Some(self.shape().to_vec())
            }

            fn take(tensors: &impl HostTensors<'a>, name: &'static str) -> crate::Result<Self> {
                tensors.$take(name)?.ok_or(crate::Error::Operand { tensor: name, problem: "is missing".into() })
            }
        }

        impl<'a, const RANK: usize> HostField<'a> for Option<HostView<'a, $element, RANK>> {
            fn extents(&self) -> Option<Vec<usize>> {
                self.as_ref().and_then(HostField::extents)
            }

            fn take(tensors: &impl HostTensors<'a>, name: &'static str) -> crate::Result<Self> {
                tensors.$take(name)
            }
        }
    )*};
}
host_field!(f32: floats, u32: integers, u8: mask);

/// Declares an op's operands: the structs of its inputs and outputs, the inputs of its twin, and `OPERANDS`, its table.
///
/// A row is `field: required|optional|list|optional_list float|statistic|lengths|index|bits|mask ["axis", …]`, and the setters of [`Operand`] that apply.
macro_rules! operands {
    (
        $(#[$inputs_doc:meta])*
        $Inputs:ident { $(#[$new_doc:meta])* $new_vis:vis fn $new:ident($($new_arg:ident: $($new_kind:ident)? $new_rank:literal),*);
            $($(#[$in_doc:meta])* $in:ident: $in_need:ident $in_kind:ident $in_axes:tt $(.$in_set:ident($($in_to:expr)?))*;)*
        }
        $(#[$outputs_doc:meta])*
        $Outputs:ident { $(#[$made_doc:meta])* pub fn $made:ident($($made_arg:ident: $($made_kind:ident)? $made_rank:literal),*);
            $($(#[$out_doc:meta])* $out:ident: $out_need:ident $out_kind:ident $out_axes:tt $(.$out_set:ident($($out_to:expr)?))*;)*
        }
        $(#[$host_doc:meta])*
        HostInputs { $($held:ident: $held_kind:ident $held_axes:tt;)* }
    ) => {
        $(#[$inputs_doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $Inputs<'a> {
            $($(#[$in_doc])* pub $in: $crate::operand::field!($in_need 'a view $in_axes),)*
        }

        impl<'a> $Inputs<'a> {
            $(#[$new_doc])*
            #[must_use]
            $new_vis fn $new($($new_arg: $crate::operand::argument!('a view $($new_kind)? $new_rank)),*) -> Self {
                Self { $($in: $crate::operand::or_none!($in_need $in)),* }
            }
        }

        $(#[$outputs_doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $Outputs<'a> {
            $($(#[$out_doc])* pub $out: $crate::operand::field!($out_need 'a view $out_axes),)*
        }

        impl<'a> $Outputs<'a> {
            $(#[$made_doc])*
            #[must_use]
            pub fn $made($($made_arg: $crate::operand::argument!('a view $($made_kind)? $made_rank)),*) -> Self {
                Self { $($out: $crate::operand::or_none!($out_need $out)),* }
            }
        }

        /// Every operand, inputs first.
        pub(crate) const OPERANDS: &[$crate::operand::Operand] = &[
            $($crate::operand::Operand::$in_kind(stringify!($in), &$in_axes).$in_need()$(.$in_set($($in_to)?))*,)*
            $($crate::operand::Operand::$out_kind(stringify!($out), &$out_axes).$out_need().written()$(.$out_set($($out_to)?))*,)*
        ];

        /// The views of a call, each with its row, in the order of the table.
        pub(crate) fn views<'a>(inputs: $Inputs<'a>, outputs: $Outputs<'a>) -> Vec<(usize, $crate::tensor::AnyView<'a>)> {
            use $crate::operand::Given;
            let mut views = Vec::with_capacity(OPERANDS.len());
            let mut rows = 0..;
            $({
                let row = rows.next().unwrap_or_default();
                views.extend(inputs.$in.views().map(|view| (row, view)));
            })*
            $({
                let row = rows.next().unwrap_or_default();
                views.extend(outputs.$out.views().map(|view| (row, view)));
            })*
            views
        }

        $(#[$host_doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct HostInputs<'a> {
            $($(#[$in_doc])* pub $in: $crate::operand::field!($in_need 'a $in_kind $in_axes),)*
            $(
                #[doc = concat!("What the output `", stringify!($held), "` holds, where the config has the op go on from it.")]
                pub $held: $crate::operand::field!(optional 'a $held_kind $held_axes),
            )*
        }

        impl<'a> HostInputs<'a> {
            $(#[$new_doc])*
            #[must_use]
            $new_vis fn $new($($new_arg: $crate::operand::argument!('a host $($new_kind)? $new_rank)),*) -> Self {
                Self { $($in: $crate::operand::or_none!($in_need $in),)* $($held: None),* }
            }

            /// The shapes that are given, by name.
            pub(crate) fn extents(&self) -> Vec<(&'static str, Vec<usize>)> {
                use $crate::operand::HostField;
                let given = [$((stringify!($in), self.$in.extents()),)* $((stringify!($held), self.$held.extents()),)*];
                given.into_iter().filter_map(|(name, extents)| Some((name, extents?))).collect()
            }

            /// The inputs that are there by name.
            pub(crate) fn take(tensors: &impl $crate::operand::HostTensors<'a>) -> $crate::Result<Self> {
                use $crate::operand::HostField;
                Ok(Self {
                    $($in: HostField::take(tensors, stringify!($in))?,)*
                    $($held: HostField::take(tensors, stringify!($held))?,)*
                })
            }
        }
    };
}
pub(crate) use operands;

/// The type of a field: on the device or the host, of so many axes.
macro_rules! field {
    (list $l:lifetime view $axes:tt) => { &$l [$crate::operand::field!(@rank $axes [$crate::TensorView] [$l])] };
    (optional_list $l:lifetime view $axes:tt) => { $crate::operand::field!(list $l view $axes) };
    (list $($required:tt)*) => { $crate::operand::field!(required $($required)*) };
    (optional_list $($required:tt)*) => { $crate::operand::field!(optional $($required)*) };
    (optional $($required:tt)*) => { Option<$crate::operand::field!(required $($required)*)> };
    (required $l:lifetime view $axes:tt) => { $crate::operand::field!(@rank $axes [$crate::TensorView] [$l]) };
    (required $l:lifetime lengths $axes:tt) => { $crate::operand::field!(@rank $axes [$crate::HostView] [$l, u32]) };
    (required $l:lifetime index $axes:tt) => { $crate::operand::field!(@rank $axes [$crate::HostView] [$l, u32]) };
    (required $l:lifetime bits $axes:tt) => { $crate::operand::field!(@rank $axes [$crate::HostView] [$l, u32]) };
    (required $l:lifetime mask $axes:tt) => { $crate::operand::field!(@rank $axes [$crate::HostView] [$l, u8]) };
    (required $l:lifetime $float:ident $axes:tt) => { $crate::operand::field!(@rank $axes [$crate::HostView] [$l, f32]) };
    (@rank [$a:literal] [$($view:tt)*] [$($of:tt)*]) => { $($view)*<$($of)*, 1> };
    (@rank [$a:literal, $b:literal] [$($view:tt)*] [$($of:tt)*]) => { $($view)*<$($of)*, 2> };
    (@rank [$a:literal, $b:literal, $c:literal] [$($view:tt)*] [$($of:tt)*]) => { $($view)*<$($of)*, 3> };
    (@rank [$a:literal, $b:literal, $c:literal, $d:literal] [$($view:tt)*] [$($of:tt)*]) => { $($view)*<$($of)*, 4> };
    (@rank [$a:literal, $b:literal, $c:literal, $d:literal, $e:literal] [$($view:tt)*] [$($of:tt)*]) => {
        $($view)*<$($of)*, 5>
    };
}
pub(crate) use field;

/// The type of an argument of a constructor: `2`, or `index 2` or `list 2` where it is no float or no single tensor.
macro_rules! argument {
    ($l:lifetime view list $rank:literal) => { &$l [$crate::TensorView<$l, $rank>] };
    ($l:lifetime view $($kind:ident)? $rank:literal) => { $crate::TensorView<$l, $rank> };
    ($l:lifetime host index $rank:literal) => { $crate::HostView<$l, u32, $rank> };
    ($l:lifetime host bits $rank:literal) => { $crate::HostView<$l, u32, $rank> };
    ($l:lifetime host mask $rank:literal) => { $crate::HostView<$l, u8, $rank> };
    ($l:lifetime host $($kind:ident)? $rank:literal) => { $crate::HostView<$l, f32, $rank> };
}
pub(crate) use argument;

/// What a constructor of the required fields alone puts into a field.
macro_rules! or_none {
    (required $field:ident) => {
        $field
    };
    (list $field:ident) => {
        $field
    };
    (optional_list $field:ident) => {
        Default::default()
    };
    (optional $field:ident) => {
        None
    };
}
pub(crate) use or_none;
