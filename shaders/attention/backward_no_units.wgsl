// No units of rows of dout: it stays f32.
const UNITS: bool = false;

fn dentropy_of(word: u32) -> f32 {
    return bitcast<f32>(word);
}

fn with_unit(dentropy: f32, size: f32) -> u32 {
    return bitcast<u32>(dentropy);
}
