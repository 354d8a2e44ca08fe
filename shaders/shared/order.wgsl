// Integers in the order of the floats whose bits these are; both zeros are one number.
fn order4(bits: vec4<u32>) -> vec4<u32> {
    let negative = bits >= vec4(0x80000000u);
    let order = select(bits | vec4(0x80000000u), ~bits, negative);
    return select(order, vec4(0x80000000u), bits == vec4(0x80000000u));
}
