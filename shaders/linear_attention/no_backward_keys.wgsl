// Rows are keys, which see queries that are not divided.
fn take_rows(last_row: u32) {}

fn take_head(batch: u32, head: u32) {}

fn divided(products: PerScore, j: u32, last: u32) -> PerScore {
    return products;
}

// What the state's h adds to a gradient that its G has.
fn with_divisor(own: vec4<f32>, z: vec4<f32>, g: u32, r: u32) -> vec4<f32> {
    return own + z;
}

fn divisor_weight(row: u32) -> f32 {
    return 1.0;
}
