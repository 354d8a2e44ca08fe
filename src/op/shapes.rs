//! The sizes of a call: from its tensors, each compared with all others by the names of axes.

use std::fmt;

use super::Kernels;
use crate::operand::{Access, Operand};
use crate::tensor::expect;
use crate::{Error, Result};

/// The sizes that are known, by axis.
pub(crate) type SizeOf<'a> = dyn Fn(&str) -> Option<u32> + 'a;

/// The sizes of a call by the names of axes, and which optional operands it has.
pub(crate) trait Shapes: Copy + Eq + std::hash::Hash + fmt::Debug + Send + Sync + 'static {
    fn of(sizes: &Sizes) -> Self;
    fn axis(&self, name: &str) -> Option<u32>;
    fn has(&self, operand: &str) -> bool;
    fn is_empty(&self) -> bool;
    /// Whether a matrix stands in memory as its transpose, as far as the sizes say.
    fn is_transposed(&self, _operand: &str) -> bool {
        false
    }
    /// Says so of a matrix.
    fn transpose(&mut self, _operand: &str) {}
}

/// A field of a struct of shapes.
pub(crate) trait ShapeField {
    fn of(sizes: &Sizes, name: &str) -> Self;
    fn axis(&self) -> Option<u32>;
    fn is_given(&self) -> bool;
}

impl ShapeField for u32 {
    fn of(sizes: &Sizes, name: &str) -> Self {
        sizes.get(name).unwrap_or(0)
    }

    fn axis(&self) -> Option<u32> {
        Some(*self)
    }

    fn is_given(&self) -> bool {
        false
    }
}

impl ShapeField for bool {
    fn of(sizes: &Sizes, name: &str) -> Self {
        sizes.given.by_key(name)
    }

    fn axis(&self) -> Option<u32> {
        None
    }

    fn is_given(&self) -> bool {
        *self
    }
}

/// The rows of an optional operand.
impl ShapeField for Option<u32> {
    fn of(sizes: &Sizes, name: &str) -> Self {
        sizes.get(name)
    }

    fn axis(&self) -> Option<u32> {
        *self
    }

    fn is_given(&self) -> bool {
        self.is_some()
    }
}

/// Declares an op's sizes: `field: u32 = "axis"`, `field: bool = "operand"`.
macro_rules! shapes {
    (
        $(#[$meta:meta])*
        pub struct $Shapes:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty = $name:literal,)* }
        $($transposed:literal stands transposed: $flag:ident;)*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields, default))]
        pub struct $Shapes { $($(#[$field_meta])* pub $field: $ty,)* }

        impl $crate::op::Shapes for $Shapes {
            fn of(sizes: &$crate::op::Sizes) -> Self {
                Self { $($field: $crate::op::ShapeField::of(sizes, $name),)* }
            }

            fn axis(&self, name: &str) -> Option<u32> {
                match name {
                    $($name => $crate::op::ShapeField::axis(&self.$field),)*
                    _ => None,
                }
            }

            fn has(&self, operand: &str) -> bool {
                match operand {
                    $($name => $crate::op::ShapeField::is_given(&self.$field),)*
                    _ => false,
                }
            }

            fn is_empty(&self) -> bool {
                self.is_empty()
            }

            fn is_transposed(&self, operand: &str) -> bool {
                match operand {
                    $($transposed => self.$flag,)*
                    _ => false,
                }
            }

            fn transpose(&mut self, operand: &str) {
                match operand {
                    $($transposed => self.$flag = true,)*
                    _ => {}
                }
            }
        }
    };
}
pub(crate) use shapes;

/// Which operands a call has. A twin's has no outputs, which it computes all; what they hold before is an input there.
#[derive(Clone, Debug, Default)]
pub(crate) struct GivenNames {
    rows: Vec<&'static Operand>,
    /// Whether it is a twin's call.
    pub on_host: bool,
}

impl GivenNames {
    pub(super) fn new(rows: impl IntoIterator<Item = &'static Operand>, on_host: bool) -> Self {
        Self { rows: rows.into_iter().collect(), on_host }
    }

    pub fn has(&self, row: &Operand) -> bool {
        self.rows.iter().any(|own| (own.name, own.access) == (row.name, row.access))
    }

    pub fn input(&self, name: &str) -> bool {
        self.rows.iter().any(|own| own.name == name && own.access == Access::Read)
    }

    pub fn output(&self, name: &str) -> bool {
        self.rows.iter().any(|own| own.name == name && own.access == Access::Write)
    }

    fn by_key(&self, key: &str) -> bool {
        self.rows.iter().any(|own| own.key() == key)
    }
}

/// What says the size of an axis.
#[derive(Clone, Copy, Debug)]
enum Why {
    /// An axis of a tensor.
    Tensor(&'static str, &'static str),
    /// The config.
    Derived(&'static str),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(axis, tensor) => write!(f, "the {axis} of {tensor}"),
            Self::Derived(why) => f.write_str(why),
        }
    }
}

/// The size of each axis, and what says it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes {
    known: Vec<(&'static str, u32, Why)>,
    pub given: GivenNames,
}

impl Sizes {
    pub fn get(&self, axis: &str) -> Option<u32> {
        self.known.iter().find(|(name, ..)| *name == axis).map(|(_, size, _)| *size)
    }

    /// Compares the axes of a tensor with those of tensors before it, by name.
    fn add<O: Kernels>(&mut self, config: &O::Config, row: &'static Operand, extents: &[u64]) -> Result<()> {
        if extents.len() != row.rank() {
            let expected = format!("{} axes", row.rank());
            return Err(Error::Shape { tensor: row.name, axis: "all", expected, got: extents.len() as u64 });
        }
        for (index, &got) in extents.iter().enumerate() {
            let (tensor, axis) = (row.name, row.axis(index));
            let extent = u32::try_from(got).map_err(|_| Error::Shape {
                tensor,
                axis,
                expected: "at most 2³² − 1".into(),
                got,
            })?;
            for name in row.names(index) {
                if let Some((_, size, why)) = self.known.iter().find(|(known, ..)| *known == name) {
                    expect(tensor, axis, extent, *size, *why)?;
                    continue;
                }
                let (size, why) = match O::derived(config, &|axis| self.get(axis), name) {
                    Some((size, why)) => (size, Why::Derived(why)),
                    None => (extent, Why::Tensor(axis, tensor)),
                };
                expect(tensor, axis, extent, size, why)?;
                self.known.push((name, size, why));
            }
        }
        Ok(())
    }
}

/// The sizes of a call's tensors, each checked against all others and the config.
pub(super) fn sizes<O: Kernels>(
    config: &O::Config,
    tensors: &[(&'static Operand, Vec<u64>)],
    host: bool,
) -> Result<O::Shapes> {
    O::check_config(config)?;
    let given = GivenNames::new(tensors.iter().map(|(row, _)| *row), host);
    check_given::<O>(config, &given)?;
    let mut sizes = Sizes { known: Vec::new(), given };
    // What says the sizes, then what has to follow them.
    let says = |row: &Operand| row.access == Access::Read && !(row.optional && row.broadcast);
    let (first, then): (Vec<_>, Vec<_>) = tensors.iter().partition(|(row, _)| says(row));
    first.iter().try_for_each(|(row, extents)| sizes.add::<O>(config, row, extents))?;
    let shapes = O::Shapes::of(&sizes);
    O::check(config, &shapes)?;
    then.iter().try_for_each(|(row, extents)| sizes.add::<O>(config, row, extents))?;
    Ok(shapes)
}

/// Refuses what the config has no use for, and asks for what it needs.
pub(super) fn check_given<O: Kernels>(config: &O::Config, given: &GivenNames) -> Result<()> {
    for row in O::OPERANDS {
        if let Some(problem) = O::refuses(config, given, row) {
            return Err(refused(row, problem, given.on_host));
        }
    }
    Ok(())
}

/// What is wrong with an operand, which may have the name of an input and be an output; to a twin all are inputs.
pub(super) fn refused(row: &Operand, problem: &str, on_host: bool) -> Error {
    let output = if row.access == Access::Write && !on_host { "the output " } else { "" };
    Error::Operand { tensor: row.name, problem: format!("{output}{problem}") }
}

/// Whether a call with these inputs may have an operand.
pub(crate) fn takes<O: Kernels>(config: &O::Config, inputs: &[&str], operand: &Operand) -> bool {
    let given = |row: &&'static Operand| match row.access {
        Access::Read => inputs.contains(&row.name) || row.name == operand.name,
        Access::Write => true,
    };
    O::refuses(config, &GivenNames::new(O::OPERANDS.iter().filter(given), false), operand).is_none()
}

/// The sizes of a twin's call.
pub(crate) fn host_shapes<O: Kernels>(config: &O::Config, extents: &[(&'static str, Vec<usize>)]) -> Result<O::Shapes> {
    let rows = O::OPERANDS.iter().filter(|row| row.access == Access::Read || row.held);
    let tensors = rows.filter_map(|row| {
        let (_, extents) = extents.iter().find(|(name, _)| *name == row.name)?;
        Some((row, extents.iter().map(|&extent| extent as u64).collect()))
    });
    sizes::<O>(config, &tensors.collect::<Vec<_>>(), true)
}

#[cfg(test)]
mod tests {
    use crate::op::Op;
    use crate::{Attention, LinearAttention};

    #[test]
    fn maps_of_a_shared_z_have_its_heads() {
        use crate::{GatedAttention, GatedAttentionConfig, GatedAttentionShapes};
        let shapes = GatedAttentionShapes::gau(2, 3, 5, 7, 11);
        for row in GatedAttention::operands() {
            let extents = GatedAttention::extents(&GatedAttentionConfig::new(), &shapes, row);
            let is_map = row.name.starts_with("gamma_") || row.name.starts_with("beta_");
            assert!(if is_map { extents == [3, 7] } else { !extents.contains(&0) }, "{}: {extents:?}", row.name);
        }
    }

    #[test]
    fn gradients_are_those_of_floats_that_are_read() {
        let names = |rows: &'static [crate::op::Operand]| -> Vec<&str> {
            rows.iter().filter(|row| row.gradient).map(|row| row.name).collect()
        };
        assert_eq!(names(Attention::operands()), ["q", "k", "v", "bias", "row_scale"]);
        assert_eq!(names(LinearAttention::operands()), ["q", "k", "v", "state_s", "state_z"]);
    }
}
