//! JSON held to its schema by a validator that others wrote; a schema that is none is refused by it.

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::Value;

/// A schema to hold values to.
pub(crate) struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    /// Of this schema, if it is one of the draft that it names.
    pub(crate) fn new(schema: &Value) -> Result<Validator, String> {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.set_default_draft(Draft::V2020_12);
        let name = "schema.json";
        compiler.add_resource(name, schema.clone()).unwrap();
        let index = compiler.compile(name, &mut schemas).map_err(|error| format!("{error:#}"))?;
        Ok(Validator { schemas, index })
    }

    /// What is wrong with a value, and where.
    pub(crate) fn holds(&self, value: &Value) -> Result<(), String> {
        self.schemas.validate(value, self.index).map_err(|error| error.to_string())
    }
}
