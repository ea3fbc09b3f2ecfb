//! Services to rules and DNS answers.
