// f16 in words of two. Into them goes integer arithmetic, to the nearest and of two the even one: what drivers make of
// numbers past 65504, and how they round, differs.

fn f16_pair(words: vec2<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(words.x), unpack2x16float(words.y));
}

// Element i, which is in this word.
fn f16_half(word: u32, i: u32) -> f32 {
    return unpack2x16float(word >> (16u * (i & 1u))).x;
}

// The same as the bits of an f32; here an infinity may be one.
fn f16_bits(word: u32, i: u32) -> u32 {
    let half = (word >> (16u * (i & 1u))) & 0xffffu;
    let finite = bitcast<u32>(unpack2x16float(half).x);
    let special = ((half & 0x8000u) << 16u) | 0x7f800000u | ((half & 0x3ffu) << 13u);
    return select(finite, special, (half & 0x7c00u) == 0x7c00u);
}

// The lower 16 bits of each.
fn f16_from(x: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(x);
    let size = bits & vec4(0x7fffffffu);
    // In units of the last of 23 bits of fraction: from 2^-14 on with an exponent whose zero is f16's, below without one.
    let below = (size & vec4(0x7fffffu)) | vec4(0x800000u);
    let exact = select(size - vec4(0x38000000u), below, size < vec4(0x38800000u));
    let shift = vec4<u32>(clamp(vec4(126) - vec4<i32>(size >> vec4(23u)), vec4(13), vec4(25)));
    let half = vec4(1u) << (shift - vec4(1u));
    let rounded = (exact + half - vec4(1u) + ((exact >> shift) & vec4(1u))) >> shift;
    let number = select(min(rounded, vec4(0x7c00u)), vec4(0x7e00u), size > vec4(0x7f800000u));
    return number | ((bits >> vec4(16u)) & vec4(0x8000u));
}
