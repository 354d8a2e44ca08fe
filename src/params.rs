//! Uniform structs: declared once here in Rust, compared with the WGSL of every specialization by `tests/shaders.rs`.

/// Name, size and fields of a uniform struct, as the WGSL must declare it.
#[derive(Clone, Copy, Debug)]
pub struct ParamsLayout {
    /// Size in bytes.
    pub size: usize,
    /// Field names with their offsets in bytes.
    pub fields: &'static [(&'static str, usize)],
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
            };
        }
    };
}
pub(crate) use params;
