"""Operations on the settings of a run other than making it, such as planning or classifying."""
