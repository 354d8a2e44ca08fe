// The Gumbel noise of four columns: a function of the row's key and the class alone.
fn gumbel4(row: Row, chunk: u32) -> vec4<f32> {
    let words = philox(vec4(chunk, row.id, row.stream, row.step), row.seed);
    return -log(exponential4(uniform4(words)));
}

// (x + 1/2) / 2^32, rounded once: both halves and their factors are exact. Never 0, and kept below 1.
fn uniform4(words: vec4<u32>) -> vec4<f32> {
    let high = vec4<f32>(words >> vec4(16u)) * 0x1p-16;
    let low = (vec4<f32>(words & vec4(0xffffu)) + 0.5) * 0x1p-32;
    return min(high + low, vec4(0x1.fffffep-1));
}

// -log(1 - v). Below 1/2, where a driver's log is off by 2^-21, from the series of 2 artanh(v / (2 - v)).
fn exponential4(v: vec4<f32>) -> vec4<f32> {
    let y = v / (2.0 - v);
    let z = y * y;
    var series = vec4(1.0 / 13.0);
    series = series * z + 1.0 / 11.0;
    series = series * z + 1.0 / 9.0;
    series = series * z + 1.0 / 7.0;
    series = series * z + 1.0 / 5.0;
    series = series * z + 1.0 / 3.0;
    let small = 2.0 * (y + y * z * series);
    let large = -log(1.0 - max(v, vec4(0.5)));
    return select(large, small, v < vec4(0.5));
}
