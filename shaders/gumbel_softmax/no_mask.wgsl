// Optional operand, off: every class takes part.
fn mask4(row: u32, chunk: u32) -> vec4<bool> {
    return vec4(true);
}
