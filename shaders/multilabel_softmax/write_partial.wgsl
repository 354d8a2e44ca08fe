// What becomes of the sums of a part: they wait for combine.wgsl, a broken one marked by a negative number.
@group(0) @binding(5) var<storage, read_write> partials: array<vec4<f32>>; // [rows, parts]

fn write(row: u32, part: u32, all: Sums) {
    partials[row * params.parts + part] = select(vec4(all.largest, all.sum), vec4(-1.0), all.broken);
}
