//! Whether one type can stand where another is wanted, and what the checker's variables stand for then.

use crate::types::Type;
use std::collections::HashMap;
use std::sync::Arc;

/// What the checker's type variables stand for.
#[derive(Debug, Default)]
pub(crate) struct Substitutions {
    bound: HashMap<Arc<str>, Type>,
    /// What to put back, latest last, when an attempt fails.
    journal: Vec<(Arc<str>, Option<Type>)>,
    variables: usize,
}

impl Substitutions {
    /// A new variable.
    pub fn variable(&mut self) -> Type {
        self.variables += 1;
        Type::Param(format!("_var{}", self.variables - 1).into())
    }

    /// Whether each of the second types can stand for the first beside it; variables are bound only if so.
    pub fn assign_all(&mut self, first: &[Type], second: &[Type]) -> bool {
        let before = self.journal.len();
        let fits = self.all(first, second);
        if !fits {
            while self.journal.len() > before {
                match self.journal.pop() {
                    Some((name, Some(old))) => drop(self.bound.insert(name, old)),
                    Some((name, None)) => drop(self.bound.remove(&name)),
                    None => break,
                }
            }
        } else if before == 0 {
            self.journal.clear();
        }
        fits
    }

    pub fn assign(&mut self, first: &Type, second: &Type) -> bool {
        self.assign_all(std::slice::from_ref(first), std::slice::from_ref(second))
    }

    /// The type with bound variables replaced; unbound ones become dyn where that is asked for.
    pub fn resolve(&self, of: &Type, unbound_is_dyn: bool) -> Type {
        let inner = |of: &Type| Arc::new(self.resolve(of, unbound_is_dyn));
        match of {
            Type::Param(name) => match self.bound.get(name) {
                Some(bound) => self.resolve(bound, unbound_is_dyn),
                None if unbound_is_dyn => Type::Dyn,
                None => of.clone(),
            },
            Type::List(element) => Type::List(inner(element)),
            Type::Optional(of) => Type::Optional(inner(of)),
            Type::Type(Some(of)) => Type::Type(Some(inner(of))),
            Type::Map(of) => {
                Type::map(self.resolve(&of.0, unbound_is_dyn), self.resolve(&of.1, unbound_is_dyn))
            }
            other => other.clone(),
        }
    }

    fn bind(&mut self, name: &Arc<str>, to: Type) {
        let old = self.bound.insert(name.clone(), to);
        self.journal.push((name.clone(), old));
    }

    fn all(&mut self, first: &[Type], second: &[Type]) -> bool {
        first.len() == second.len() && first.iter().zip(second).all(|(a, b)| self.fits(a, b))
    }

    fn fits(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(name) = b {
            match self.stands_for(a, b, name) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Param(name) = a {
            return self.stands_for(b, a, name).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => {
                let nullable = matches!(
                    other,
                    Type::Optional(_) | Type::Opaque(_) | Type::Struct(_) | Type::Duration | Type::Timestamp
                );
                nullable || *other == Type::Null
            }
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.fits(a, b),
            (Type::Map(a), Type::Map(b)) => self.fits(&a.0, &b.0) && self.fits(&a.1, &b.1),
            (Type::Type(_), Type::Type(_)) => true,
            (a, b) => a == b,
        }
    }

    /// Whether the variable `name` (which is `b`) can stand for `a`, and whether it stood for something before.
    fn stands_for(&mut self, a: &Type, b: &Type, name: &Arc<str>) -> (bool, bool) {
        if a == b {
            return (true, true);
        }
        if let Some(bound) = self.bound.get(name).cloned() {
            if *a == bound {
                return (true, true);
            }
            if self.fits(a, &bound) {
                let wider = most_general(a, &bound);
                if self.not_within(b, &wider) {
                    self.bind(name, wider);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.not_within(b, a) {
            self.bind(name, a.clone());
            return (true, false);
        }
        (false, false)
    }

    /// Whether the variable does not occur in the type.
    fn not_within(&self, variable: &Type, within: &Type) -> bool {
        if variable == within {
            return false;
        }
        match within {
            Type::Param(name) => self.bound.get(name).is_none_or(|bound| self.not_within(variable, bound)),
            Type::List(inner) | Type::Optional(inner) | Type::Type(Some(inner)) => {
                self.not_within(variable, inner)
            }
            Type::Map(of) => self.not_within(variable, &of.0) && self.not_within(variable, &of.1),
            _ => true,
        }
    }
}

/// The less specific of two types that fit each other.
pub(crate) fn most_general(a: &Type, b: &Type) -> Type {
    if less_specific(a, b) { a.clone() } else { b.clone() }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (Type::Map(a), Type::Map(b)) => less_specific(&a.0, &b.0) && less_specific(&a.1, &b.1),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
