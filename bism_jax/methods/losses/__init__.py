"""The losses of methods as functions of explicit noise; `methods` exports what is public."""
