// The app's own shaders: its scene as queries, keys and values, and the picture that it makes of what attention returns.

override SIZE: u32; // pixels along a side
const TAU = 6.2831853;

@group(0) @binding(0) var<storage, read_write> q: array<vec4f>; // one per pixel
@group(0) @binding(1) var<storage, read_write> k: array<vec4f>; // one per seed
@group(0) @binding(2) var<storage, read_write> v: array<vec4f>;
@group(0) @binding(3) var<storage, read> o: array<vec4f>; // one per pixel, by attention
@group(0) @binding(4) var<storage, read> entropy: array<f32>;

@compute @workgroup_size(8, 8)
fn scene(@builtin(global_invocation_id) pixel: vec3u) {
    let index = pixel.y * SIZE + pixel.x;
    let x = (2 * vec2f(pixel.xy) + 1) / f32(SIZE) - 1;
    let beta = 30 * exp(3.5 * smoothstep(-0.8, 0.5, x.x));
    q[index] = beta * vec4f(x, 1, 0);

    if index < arrayLength(&k) {
        // A golden angle from one seed to the next.
        let turn = TAU * (fract(0.38196602 * f32(index)) - 0.5);
        let radius = 1.5 * sqrt((f32(index) + 0.5) / f32(arrayLength(&k)));
        let c = radius * vec2f(cos(turn), sin(turn));
        k[index] = vec4f(2 * c, -dot(c, c), 0);
        // A slow spiral of hues, and every eighth seed, an arm of the sunflower, a little further along it.
        let hue = atan2(c.y, c.x) / TAU + 0.6 * radius + 0.04 * f32(index % 8);
        let paint = 0.55 + 0.45 * cos(TAU * (hue + vec3f(0, 0.12, 0.24)));
        v[index] = vec4f(paint * paint, 1);
    }
}

@vertex
fn corner(@builtin(vertex_index) index: u32) -> @builtin(position) vec4f {
    return vec4f(f32(index & 1) * 4 - 1, f32(index >> 1) * 4 - 1, 0, 1);
}

fn entropy_at(x: i32, y: i32) -> f32 {
    let last = i32(SIZE) - 1;
    return entropy[clamp(y, 0, last) * i32(SIZE) + clamp(x, 0, last)];
}

@fragment
fn glass(@builtin(position) position: vec4f) -> @location(0) vec4f {
    let p = vec2i(position.xy);
    let rise_x = entropy_at(p.x + 1, p.y) - entropy_at(p.x - 1, p.y);
    let rise_y = entropy_at(p.x, p.y + 1) - entropy_at(p.x, p.y - 1);
    let normal = normalize(vec3f(f32(SIZE) / 256 * vec2f(rise_x, rise_y), 1));
    let light = normalize(vec3f(-1, -1, 1.5));
    let shine = pow(max(dot(normal, normalize(light + vec3f(0, 0, 1))), 0), 80);
    let color = o[p.y * i32(SIZE) + p.x].rgb;
    return vec4f(color * (0.25 + 1.1 * max(dot(normal, light), 0)) + 0.15 * shine, 1);
}
