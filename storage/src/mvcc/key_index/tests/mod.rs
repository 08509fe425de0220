//! The index against a naive model.

mod model;
mod properties;
mod scenarios;
