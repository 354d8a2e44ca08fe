//! Uniform structs: declared once here in Rust, compared with the WGSL of every specialization by `tests/shaders.rs`.

/// Name, size and fields of a uniform struct, as the WGSL must declare it.
#[derive(Clone, Copy, Debug)]
pub struct ParamsLayout {
    /// Size in bytes.
    pub size: usize,
    /// Field names with their offsets in bytes.
    pub fields: &'static [(&'static str, usize)],
    /// The type of each.
    pub types: &'static [&'static str],
}

/// A uniform struct that [`params!`] declares.
pub(crate) trait Params: bytemuck::Pod {
    /// Its fields.
    const LAYOUT: ParamsLayout;

    /// The first of these fields that is an integer and 0.
    fn zero_among(&self, names: &[&'static str]) -> Option<&'static str> {
        let bytes = bytemuck::bytes_of(self);
        let ParamsLayout { fields, types, .. } = Self::LAYOUT;
        let integers = fields.iter().zip(types).filter(|(_, ty)| **ty != "f32").map(|(field, _)| *field);
        let mut zeros = integers.filter(|(_, offset)| bytes[*offset..*offset + 4] == [0; 4]);
        zeros.find(|(name, _)| names.contains(name)).map(|(name, _)| name)
    }
}

/// Declares a `#[repr(C)]` uniform struct of 4-byte scalars together with its [`ParamsLayout`].
macro_rules! params {
    ($(#[$meta:meta])* struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name { $($(#[$field_meta])* pub $field: $ty,)* }

        impl $name {
            pub const LAYOUT: $crate::params::ParamsLayout = $crate::params::ParamsLayout {
                size: size_of::<Self>(),
                fields: &[$((stringify!($field), std::mem::offset_of!($name, $field)),)*],
                types: &[$(stringify!($ty),)*],
            };
        }

        impl $crate::params::Params for $name {
            const LAYOUT: $crate::params::ParamsLayout = Self::LAYOUT;
        }
    };
}
pub(crate) use params;
