// The unit of each row's dout, a power of two, where its numbers become f16: they are below 2^15 of it, however small or large they are. Its
// exponent takes the place of the last eight bits of the row's dentropy, as what that becomes by matrices has eleven.
const UNITS: bool = true;

fn dentropy_of(word: u32) -> f32 {
    return bitcast<f32>(word & 0xffffff00u);
}

fn unit_of(word: u32) -> f32 {
    return bitcast<f32>((word & 0xffu) << 23u);
}

// That of numbers whose sizes add up to `size`, into dentropy.
fn with_unit(dentropy: f32, size: f32) -> u32 {
    return bitcast<u32>(dentropy) | (clamp(bitcast<u32>(size) >> 23u, 15u, 254u) - 14u);
}
