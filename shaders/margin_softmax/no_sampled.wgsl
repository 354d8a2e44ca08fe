// Optional operand, off: all classes take part.
fn number_of(place: u32) -> u32 {
    return place;
}
