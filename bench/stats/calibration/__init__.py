"""What recorded errors of labelled images say of decisions to come."""
