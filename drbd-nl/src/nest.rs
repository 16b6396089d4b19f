//! Values of attributes, and the macro that turns a table of numbers, names and types into a struct that reads and writes a nest.
//!
//! Every field is optional, as on the wire: kernels add fields, and what is absent in a request keeps its value or its default. Unknown attributes
//! survive in `other`, and so do repetitions. Attribute type 0 is padding (kernels on some machines align 64-bit values with it) and is dropped.

use crate::{
    Address, Dialect, Secret,
    error::DecodeError,
    wire::{self, Attr, RawAttr},
};

/// What an attribute can hold.
pub(crate) trait Value: Sized {
    /// Whether the attribute is a nest, and its type carries the bit that says so.
    const NESTED: bool = false;

    fn parse(bytes: &[u8], dialect: Dialect) -> Result<Self, ValueError>;

    /// Appends the value; false when the dialect has no number for it, and the attribute is left out.
    fn emit(&self, dialect: Dialect, out: &mut Vec<u8>) -> bool;
}

/// Why a value could not be read.
pub(crate) enum ValueError {
    Length { need: usize },
    Inside(DecodeError),
}

impl From<DecodeError> for ValueError {
    fn from(error: DecodeError) -> Self {
        ValueError::Inside(error)
    }
}

/// Reads one field; an error names it.
pub(crate) fn field<T: Value>(
    nest: &'static str,
    field: &'static str,
    attr: RawAttr<'_>,
    dialect: Dialect,
) -> Result<T, DecodeError> {
    T::parse(attr.value, dialect).map_err(|error| match error {
        ValueError::Length { need } => DecodeError::Length { nest, field, len: attr.value.len(), need },
        ValueError::Inside(error) => error,
    })
}

/// Appends one field if it is there.
pub(crate) fn put<T: Value>(number: u16, value: Option<&T>, dialect: Dialect, out: &mut Vec<u8>) {
    let Some(value) = value else { return };
    let start = out.len();
    let mut known = true;
    let kind = if T::NESTED { wire::nested(number) } else { number };
    wire::put(out, kind, |out| known = value.emit(dialect, out));
    if !known {
        out.truncate(start);
    }
}

pub(crate) fn put_all(attrs: &[Attr], out: &mut Vec<u8>) {
    attrs.iter().for_each(|attr| attr.emit(out));
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn parse(bytes: &[u8], _: Dialect) -> Result<Self, ValueError> {
                let bytes = bytes.try_into().map_err(|_| ValueError::Length { need: size_of::<$type>() })?;
                Ok(<$type>::from_ne_bytes(bytes))
            }

            fn emit(&self, _: Dialect, out: &mut Vec<u8>) -> bool {
                out.extend_from_slice(&self.to_ne_bytes());
                true
            }
        }
    )*};
}
integers!(u16, u32, i32, u64);

/// DRBD's flags are an `NLA_U8` of 0 or 1, not an `NLA_FLAG`.
impl Value for bool {
    fn parse(bytes: &[u8], _: Dialect) -> Result<Self, ValueError> {
        match bytes {
            [byte] => Ok(*byte != 0),
            _ => Err(ValueError::Length { need: 1 }),
        }
    }

    fn emit(&self, _: Dialect, out: &mut Vec<u8>) -> bool {
        out.push(u8::from(*self));
        true
    }
}

/// Always sent with its NUL: the kernel uses the filter of a dump without looking for one.
impl Value for String {
    fn parse(bytes: &[u8], _: Dialect) -> Result<Self, ValueError> {
        Ok(wire::text_of(bytes))
    }

    fn emit(&self, _: Dialect, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(self.as_bytes());
        out.push(0);
        true
    }
}

impl Value for Secret {
    fn parse(bytes: &[u8], dialect: Dialect) -> Result<Self, ValueError> {
        String::parse(bytes, dialect).map(Secret::new)
    }

    fn emit(&self, dialect: Dialect, out: &mut Vec<u8>) -> bool {
        self.expose().to_owned().emit(dialect, out)
    }
}

impl Value for Vec<u8> {
    fn parse(bytes: &[u8], _: Dialect) -> Result<Self, ValueError> {
        Ok(bytes.to_vec())
    }

    fn emit(&self, _: Dialect, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(self);
        true
    }
}

impl Value for Address {
    fn parse(bytes: &[u8], _: Dialect) -> Result<Self, ValueError> {
        Ok(Address::from_bytes(bytes))
    }

    fn emit(&self, _: Dialect, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(self.as_bytes());
        true
    }
}

/// Data generation identifiers, as a blob of 64-bit numbers. DRBD 8.4 sends its history empty or cut short.
impl Value for Vec<u64> {
    fn parse(bytes: &[u8], _: Dialect) -> Result<Self, ValueError> {
        let (chunks, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(ValueError::Length { need: bytes.len().next_multiple_of(8) });
        }
        Ok(chunks.iter().copied().map(u64::from_ne_bytes).collect())
    }

    fn emit(&self, _: Dialect, out: &mut Vec<u8>) -> bool {
        out.extend(self.iter().flat_map(|uuid| uuid.to_ne_bytes()));
        true
    }
}

/// Declares the struct of a nest: each line is the attribute's number, the field's name and its type, numbers as in
/// linux/drbd_genl.h (8.4) and drbd-headers 9.3.3 (9).
macro_rules! nest {
    (
        $(#[$meta:meta])*
        $name:ident {
            $( $(#[$field_meta:meta])* $number:literal $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Default, PartialEq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
                pub $field: Option<$type>,
            )*
            /// Attributes that this version does not know, and repeated ones, as they came.
            #[cfg_attr(feature = "serde", serde(skip))]
            pub other: Vec<$crate::wire::Attr>,
        }

        impl $crate::nest::Value for $name {
            const NESTED: bool = true;

            fn parse(bytes: &[u8], dialect: $crate::Dialect) -> Result<Self, $crate::nest::ValueError> {
                let mut nest = Self::default();
                for attr in $crate::wire::RawAttr::list(bytes) {
                    let attr = attr?;
                    match attr.number() {
                        0 => {}
                        $($number if nest.$field.is_none() => {
                            let value = $crate::nest::field(stringify!($name), stringify!($field), attr, dialect)?;
                            nest.$field = Some(value);
                        })*
                        _ => nest.other.push(attr.to_owned()),
                    }
                }
                // Some nests have no field that depends on it.
                let _ = dialect;
                Ok(nest)
            }

            fn emit(&self, dialect: $crate::Dialect, out: &mut Vec<u8>) -> bool {
                $($crate::nest::put($number, self.$field.as_ref(), dialect, out);)*
                $crate::nest::put_all(&self.other, out);
                let _ = dialect;
                true
            }
        }

        /// Shows the fields that are there.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut fields = f.debug_struct(stringify!($name));
                $(if let Some(value) = &self.$field {
                    fields.field(stringify!($field), value);
                })*
                if !self.other.is_empty() {
                    fields.field("other", &self.other);
                }
                fields.finish()
            }
        }
    };
}
pub(crate) use nest;
