// The output, not needed: nothing is asked for that comes through scores.
const DELTA: bool = false;

fn load_saved_o(base: u32, chunk: u32) -> vec4<f32> {
    return vec4(0.0);
}
