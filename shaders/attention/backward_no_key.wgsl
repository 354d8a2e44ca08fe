// The lse that stands among the facts of a row that sees no key: above every score, so that every weight is 0.
const NO_KEY: f32 = 1.0e38;
