// The logits, in fours where all rows start and end at a multiple of four.
@group(0) @binding(2) var<storage, read> logits: array<Elem>; // [rows, columns]
