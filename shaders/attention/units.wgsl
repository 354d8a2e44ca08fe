// The units of scores, where they are compared and where a weight follows.
const LOG2_E: f32 = 1.4426950408889634;
// Scores are in units of log2, the factor being part of the scale. Where more follows the scale they stay natural until the
// largest is subtracted: a large score, as a bias makes it, would be rounded once more by the factor.
const NATURAL: bool = SOFTCAP || ROW_MASK;
const UNIT: f32 = select(LOG2_E, 1.0, NATURAL);

// e to the power of a score below the maximum, or not much above.
fn weight(below: vec4<f32>) -> vec4<f32> {
    if (NATURAL) {
        return exp(below);
    }
    return exp2(below);
}
