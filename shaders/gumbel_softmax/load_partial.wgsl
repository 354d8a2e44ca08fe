// The states of slices, as one kernel left them to the next. One dispatch binds the workspace in one way.
@group(0) @binding(4) var<storage, read_write> partials: array<vec4<u32>>; // [rows, slices, 2]

fn load_partial(at: u32) -> State {
    let a = partials[2u * at];
    return State(bitcast<f32>(a.x), a.y, of_words(partials[2u * at + 1u]), a.z);
}
